"""The commands for Kubernetes in README.md and deploy/, in their order, as an operator types them."""

import re
import stat

from tests.cluster.deployment import Deploy
from tests.documents import commands
from tests.support import ids


def test_the_readmes_commands_work(prepare: Deploy) -> None:
    deployment = prepare()
    deployment.create_volume()
    deployment.fill_in()
    deployment.write_secrets("secrets")
    apply, run, fetch = commands("README.md", "Kubernetes")
    (check,) = commands("deploy/kubernetes/README.md", "Check")
    (look,) = commands("deploy/kubernetes/README.md", "No log appears, or a run failed")
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

    *get, delete = fetch.splitlines(keepends=True)
    history = deployment.run("".join(get))
    assert re.search(r" drained +0 +225 +25 ", history)
    fetched = sorted((deployment.root / "output").glob("expired_exams_*"))
    assert [path.suffix for path in fetched] == [".csv", ".json"]
    assert ids(fetched[0].read_bytes()) == deployment.exam_ids
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [deployment.root / "output", *fetched])
    recover = commands("README.md", "You were paged")[0].splitlines()[2]
    assert deployment.run(recover) == ""
    deployment.run(delete)


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
