"""Bodies of responses to an expire call."""

import json
from typing import Any

from tests.servers import response
from tests.support import HEADER

EXAM = dict(zip(HEADER, ("key", "id", "exam", 7, "expired"), strict=True))


def exam(exam_id: str, **changes: Any) -> dict[str, Any]:
    """A record that Proctor could send, but for the changes."""
    return {**EXAM, "examId": exam_id, **changes}


def body(*records: object, more: bool = False) -> bytes:
    """The body with these records."""
    content = {"expiredExams": records, "additionalExamsToExpire": more}
    return json.dumps(content, ensure_ascii=False).encode()


def batch(*records: object, more: bool = False) -> bytes:
    """The complete response with these records."""
    return response(200, body(*records, more=more), Content_Type="application/json;charset=UTF-8")
