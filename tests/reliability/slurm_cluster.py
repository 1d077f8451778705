"""A SLURM of this machine alone: munged, slurmctld and slurmd on free ports of 127.0.0.1, all state in one folder.

Its one node says that it has 32 processors, 200 GB and two GPUs (which are /dev/null and /dev/zero), so that it takes
jobs as a real cluster would. What is missing beside a real one: cgroups and accounting.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

SYSTEM = ("/usr/sbin", "/sbin")
DAEMONS = ("munged", "slurmctld", "slurmd")

CONFIGURATION = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
# cred_expire: seconds until a requeued job may start again
AuthInfo=socket={folder}/munge.sock,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=300
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 CoresPerSocket=32 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
PartitionName=work Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
DEVICES = "NodeName={host} Name=gpu File={folder}/gpu[0-1] Flags=nvidia_gpu_env\n"


def missing():
    """Which of the daemons are not installed here."""
    return [name for name in DAEMONS if not shutil.which(name, path=search_path())]


def search_path():
    return os.pathsep.join([os.environ["PATH"], *SYSTEM])


class Cluster:
    """A running one; `environment` is what its commands need."""

    def __init__(self, folder):
        """Start it in `folder`, whose path must be short: it holds a socket."""
        self.folder, host = folder, socket.gethostname()
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir()
        for number, device in enumerate(("null", "zero")):
            (folder / f"gpu{number}").symlink_to(f"/dev/{device}")
        names = {"host": host, "user": getpass.getuser(), "folder": folder}
        names |= {"controller": free_port(), "node": free_port()}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**names))
        (folder / "gres.conf").write_text(DEVICES.format(**names))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        # The plug-in hides SLURM_CONF, a name that a cluster with its file in /etc does not need, from srun.
        srun = folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        path = os.pathsep.join([str(folder / "bin"), search_path()])
        self.environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": path}
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
        files |= {"seed-file": "seed"}
        self.call("munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items()))
        self.call("slurmctld")
        self.call("slurmd")
        self.wait_for(lambda: self.call("sinfo", "--noheader", "--format=%t").strip() == "idle", 60)

    def call(self, *command):
        """The output of a command."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def running(self, comment):
        """The number of the running job whose comment (the rule and its wildcards) holds `comment`, or None."""
        for line in self.call("squeue", "--noheader", "--states=running", "--format=%i %k").splitlines():
            job, _, said = line.partition(" ")
            if comment in said:
                return job
        return None

    def wait_for(self, condition, seconds):
        """What `condition()` returns as soon as that is true."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, (self.folder / "slurmctld.log").read_text()[-3000:]
            time.sleep(0.1)
        return found

    def stop(self):
        """End its jobs and its daemons."""
        subprocess.run(["scancel", "--user", getpass.getuser()], env=self.environment, capture_output=True)
        with contextlib.suppress(AssertionError):
            self.wait_for(lambda: not self.call("squeue", "--noheader").strip(), 20)
        for name in reversed(DAEMONS):
            with contextlib.suppress(OSError, ValueError):
                process = int((self.folder / f"{name}.pid").read_text())
                os.kill(process, signal.SIGTERM)
                self.wait_for(lambda process=process: not Path(f"/proc/{process}").exists(), 20)


def free_port():
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
