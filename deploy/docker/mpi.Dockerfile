# The image of Tidings with MPICH and sshd, for MPIJobs: see docs/kubernetes.md.
#
# From the root of the repository, after wheelhouse.sh and the image of Tidings:
#
#   docker build -f deploy/docker/mpi.Dockerfile -t tidings-mpi:VERSION .
ARG IMAGE=tidings:0.1.0

FROM ${IMAGE} AS mpi
USER 0:0
COPY build/wheelhouse-mpi /wheelhouse
COPY deploy/docker/requirements-mpi.txt /requirements.txt
RUN /opt/python/bin/python -m pip install --no-cache-dir --disable-pip-version-check -q --no-compile \
      --no-index --no-deps --find-links /wheelhouse --root /mpi -r /requirements.txt \
 && rm -rf /mpi/opt/python/include \
 && find /mpi -exec touch -h -d @0 {} +

FROM ${IMAGE}
USER 0:0
RUN command -v sshd >/dev/null || { \
      apt-get update -q && apt-get install -y -q --no-install-recommends openssh-server \
      && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*; }
# ssh and sshd want the user to have a name; the MPI Operator mounts the keys
RUN useradd --uid 10001 --user-group --password '*' --shell /bin/sh \
      --home-dir /home/tidings --create-home tidings \
 && mkdir /home/tidings/.ssh
COPY --from=mpi /mpi /
USER 10001:10001
