"""What else the README has an operator set, and what is seen where something is missing."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import trustme

from tests.cluster.deployment import IMAGE, PATIENCE, Deploy, Deployment

CA_LINE = "# - secrets/ca.pem  # your own CA"


def test_your_own_ca_is_a_file_beside_the_secrets(prepare: Deploy, tmp_path: Path, cluster: str) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(cluster)
    certificate, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    deployment = prepare(certificate=(str(certificate), str(key)))
    deployment.create_volume()
    deployment.edit("job", (CA_LINE, CA_LINE.removeprefix("# ")))
    deployment.fill_in(TLS_CA_FILE="/run/secrets/ca.pem")
    deployment.write_secrets()
    deployment.run("cp ca.pem deploy/kubernetes/job/secrets/")
    deployment.apply()
    deployment.start("run")
    deployment.wait("job/run", "Complete")
    deployment.assert_each_exam_has_one_row()
    assert deployment.proctor.url.startswith("https:")


def test_client_credentials_need_no_password_file(prepare: Deploy) -> None:
    deployment = prepare()
    deployment.create_volume()
    deployment.edit("job", ("      - secrets/auth_password  #", "      # - secrets/auth_password  #"))
    deployment.fill_in(AUTH_GRANT_TYPE="client_credentials", AUTH_USERNAME="")
    deployment.write_secrets()
    deployment.run("rm deploy/kubernetes/job/secrets/auth_password")
    deployment.apply()
    deployment.start("run")
    deployment.wait("job/run", "Complete")
    deployment.assert_each_exam_has_one_row()


def test_a_missing_secret_is_named_in_describe(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.kubectl("delete", "secret", "force-submit-proctor")
    deployment.start("run")
    deployment.wait_for_event("FailedMount", message := 'secret "force-submit-proctor" not found')
    assert message in describe(deployment)


def test_an_image_that_cannot_be_pulled_is_named_in_describe(prepare: Deploy) -> None:
    deployment = prepare()
    deployment.create_volume()
    deployment.edit("image", (IMAGE.split(":")[0], "registry.invalid/force-submit-proctor"))
    deployment.fill_in()
    deployment.write_secrets()
    deployment.apply()
    deployment.start("run")
    deployment.wait_for_event("Failed", message := 'Failed to pull image "registry.invalid/force-submit-proctor')
    assert message in describe(deployment)


def test_a_claim_without_a_volume_is_named_in_describe_and_the_run_starts_once_there_is_one(prepare: Deploy) -> None:
    deployment = prepare()
    deployment.fill_in()
    deployment.write_secrets()
    deployment.apply()
    deployment.start("run")
    with ThreadPoolExecutor() as background:
        log = background.submit(deployment.run, "until kubectl logs -f job/run | grep .; do sleep 1; done")
        deployment.wait_for_event("FailedScheduling", message := "unbound immediate PersistentVolumeClaims")
        assert message in describe(deployment)
        deployment.create_volume()
        assert "Done: 250 exams" in log.result()
    deployment.wait("job/run", "Complete")


def test_a_namespace_at_the_restricted_level_admits_the_pods_but_no_others(deploy: Deploy) -> None:
    deployment = deploy()
    refusal = deployment.run(f"kubectl run other --image={IMAGE} --dry-run=server 2>&1 || true")
    assert 'violates PodSecurity "restricted:latest"' in refusal
    warnings = deployment.run(
        "{ kubectl apply -k deploy/kubernetes/job; kubectl apply -k deploy/kubernetes/fetch; } 2>&1"
    )
    assert "PodSecurity" not in warnings
    deployment.wait("pod/force-submit-fetch", "Ready")


def test_the_fetch_pod_can_write_on_the_volume_and_ends_at_the_first_signal(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.run("kubectl apply -k deploy/kubernetes/fetch")
    deployment.wait("pod/force-submit-fetch", "Ready")
    deployment.kubectl("exec", "force-submit-fetch", "--", "touch", "/output/recovered.csv")
    assert (deployment.volume / "recovered.csv").stat().st_uid == 10001
    deployment.run("kubectl exec force-submit-fetch -- sh -c 'kill -TERM 1' || true")  # it may end with the pod
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    deployment.kubectl("wait", "pod/force-submit-fetch", succeeded, f"--timeout={PATIENCE}s")


def describe(deployment: Deployment) -> str:
    return deployment.run("kubectl describe pod -l app.kubernetes.io/name=force-submit-proctor")
