"""The commands of the README's section on Kubernetes, all of them, in their order, as an operator types them."""

import re
import shlex
import stat

from tests.cluster.deployment import Deploy
from tests.support import ROOT, rows_of


def commands() -> list[str]:
    """The section's indented blocks."""
    section = (ROOT / "README.md").read_text().partition("\n### Kubernetes\n")[2].partition("\n### ")[0]
    return [
        re.sub(r"^    ", "", block, flags=re.MULTILINE)
        for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    ]


def test_the_readmes_commands_work(prepare: Deploy) -> None:
    deployment = prepare()
    deployment.create_volume()
    deployment.fill_in()
    credentials = deployment.proctor.scenario.credentials
    apply, check, run, look, fetch = commands()
    for prompt, credential in ("Client secret", "client_secret"), ("Password", "password"):
        typed = f"secret={shlex.quote(credentials[credential])}"
        apply = apply.replace(f"read -rsp '{prompt}: ' secret", typed)
    deployment.run(apply)

    checked = deployment.run(check)
    assert re.findall(r"^(\S+) +(\w+):", checked, re.MULTILINE)[-3:] == [
        ("ok", "output"),
        ("ok", "token"),
        ("ok", "endpoint"),
    ]
    assert not deployment.proctor.record

    log = deployment.run(run)
    assert "Done: 250 exams" in log
    (job,) = deployment.get("jobs")
    deployment.wait(f"job/{job['metadata']['name']}", "Complete")
    deployment.assert_each_exam_has_one_row()
    assert len(deployment.exam_ids) == 250

    described = deployment.run(look)
    assert re.search(rf"^{job['metadata']['name']} +Complete +1/1", described, re.MULTILINE)
    assert re.search(r"Exit Code: +0", described)

    history = deployment.run(fetch)
    assert re.search(r" drained +0 +225 +25 ", history)
    fetched = sorted((deployment.root / "output").glob("expired_exams_*"))
    assert [path.suffix for path in fetched] == [".csv", ".json"]
    assert [row["examId"] for row in rows_of(fetched[0].read_bytes())] == deployment.exam_ids
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [deployment.root / "output", *fetched])


def test_deleting_the_job_keeps_the_claim_and_its_data(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start("run")
    deployment.wait("job/run", "Complete")
    deployment.run("kubectl delete -k deploy/kubernetes/job")
    (claim,) = deployment.get("persistentvolumeclaims")
    assert claim["status"]["phase"] == "Bound"
    deployment.assert_each_exam_has_one_row()
    assert not deployment.get("configmaps", "-l", "app.kubernetes.io/name=force-submit-proctor")
    assert not deployment.get("secrets")
