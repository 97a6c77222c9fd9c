# A mirror can stand in for the official image: --build-arg PYTHON_IMAGE=mirror.example.org/python:3.13-slim
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /opt/force-submit
COPY requirements.txt ./
RUN python -m pip install --no-cache-dir --no-compile --require-hashes --target packages -r requirements.txt \
    && rm -rf packages/bin requirements.txt
COPY app app
# Not checked against the source at run time: in an image the two cannot differ, and the start is faster.
# A clone made with a strict umask has files that only their owner can read, and here that is not user 10001.
RUN python -m compileall -q --invalidation-mode unchecked-hash . \
    && chmod -R a+rX . \
    && install -d -o 10001 -g 10001 -m 0750 /output

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Force Submit Proctor Utility" \
      org.opencontainers.image.description="Expires overdue exams through Proctor and reports each of them in a CSV" \
      org.opencontainers.image.version="1.0.0"
COPY --from=build /opt/force-submit /opt/force-submit
# A named volume mounted here takes over this directory's owner.
COPY --from=build --chown=10001:10001 /output /output
# FORCE_SUBMIT_IN_CONTAINER: an OUTPUT_DIR where nothing is mounted would be deleted with the container, and is refused.
ENV PYTHONPATH=/opt/force-submit:/opt/force-submit/packages \
    PYTHONDONTWRITEBYTECODE=1 \
    FORCE_SUBMIT_IN_CONTAINER=true
WORKDIR /opt/force-submit
USER 10001:10001
ENTRYPOINT ["python", "-m", "app"]
