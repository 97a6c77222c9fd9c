"""Lost responses, recovered in the fetch pod."""

from tests.cluster.deployment import Deploy


def test_the_exams_of_a_lost_response_are_recovered_in_the_fetch_pod(deploy: Deploy) -> None:
    deployment = deploy(faults=["reset-after"], settings={"READ_TIMEOUT": "5"})
    deployment.start("run")
    deployment.wait("job/run", "Failed")
    deployment.run("kubectl apply -k deploy/kubernetes/fetch")
    deployment.wait("pod/force-submit-fetch", "Ready")
    recover = ("exec", "-i", "force-submit-fetch", "--", "python", "-m", "app", "recover", "/output")
    assert "FROM exam.exam_event" in deployment.kubectl(*recover)
    (deployment.root / "found.tsv").write_text(deployment.proctor.found(deployment.proctor.record[0]))
    once_the_window_has_ended = "until kubectl {} --found - --unverified < found.tsv; do sleep 1; done"
    deployment.run(once_the_window_has_ended.format(" ".join(recover)))
    deployment.assert_each_exam_has_one_row()
    history = deployment.kubectl("exec", "force-submit-fetch", "--", "python", "-m", "app", "history", "/output")
    assert "Unresolved" not in history
