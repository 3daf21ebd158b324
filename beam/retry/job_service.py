"""A Beam job service whose runner tries lost bundles again.

It is Beam's portable Python runner with worker processes (--environment_type PROCESS) and
with what that runner lacks: a bundle whose worker has died is run once more, whole, by a new
worker, and what the dead one had sent of it is thrown away. --kill-after kills a worker in
the middle of a bundle, once a job.

Needs apache-beam from PyPI. All ports are on the loopback interface.
"""
import argparse
import json
import os
import signal
import subprocess
import threading
import time

import grpc
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers

events = {"jobs": 0, "workers": 0, "killed": 0, "retried": 0}
lock = threading.Lock()


def loopback_server(*args, make=grpc.server, **named):
    """Beam binds workers' ports to all interfaces; these are bound to one."""
    server = make(*args, **named)
    add = server.add_insecure_port
    server.add_insecure_port = lambda address: add(address.replace("[::]:", "localhost:"))
    return server


grpc.server = loopback_server


@worker_handlers.WorkerHandler.register_environment(
    common_urns.environments.PROCESS.urn, beam_runner_api_pb2.ProcessPayload)
class ProcessWorkerHandler(worker_handlers.GrpcWorkerHandler):
    """Starts a worker as a process, and another when that one dies."""

    def __init__(self, payload, state, provision_info, grpc_server):
        super().__init__(state, provision_info, grpc_server)
        self.payload = payload
        self.closing = False

    def start_worker(self):
        address = self.control_address
        self.process = subprocess.Popen(
            [self.payload.command, "--id=" + self.worker_id, "--provision_endpoint=" + address,
             "--control_endpoint=" + address,
             "--logging_endpoint=" + self.logging_api_service_descriptor().url],
            env={**os.environ, **self.payload.env})
        with lock:
            events["workers"] += 1
        threading.Thread(target=self.watch, args=(self.process, self.control_conn), daemon=True).start()

    def watch(self, process, connection):
        """Ends with an error what a process that has died was asked for."""
        process.wait()
        if self.closing:
            return
        for name, future in list(connection._futures_by_id.items()):
            future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=name, error="the worker died"))

    def renew(self, lost):
        """Starts another process in place of lost, unless that was done."""
        with lock:
            if self.process is not lost:
                return
            manager = self._grpc_server.control_handler._worker_manager
            self.worker_id += "-again"
            self.control_conn = self._grpc_server.control_handler.get_conn_by_worker_id(self.worker_id)
            self.data_conn = self._grpc_server.data_plane_handler.get_conn_by_worker_id(self.worker_id)
            manager._workers_by_id[self.worker_id] = self
        self.start_worker()

    def stop_worker(self):
        self.closing = True
        self.process.kill()
        self.process.wait()


def seconds(process):
    """Processor seconds that a process has used."""
    with open(f"/proc/{process.pid}/stat") as f:
        user = f.read().rpartition(")")[2].split()[11]
    return int(user) / os.sysconf("SC_CLK_TCK")


class Attempt:
    """A stage's context with buffers of its own, until it is known that the bundle was done."""

    def __init__(self, context):
        self.context = context
        self.parts = {}

    def __getattr__(self, name):
        return getattr(self.context, name)

    def get_buffer(self, buffer, transform):
        return self.parts.setdefault((buffer, transform), fn_runner.ListBuffer(None))

    def keep(self):
        for (buffer, transform), part in self.parts.items():
            to = self.context.get_buffer(buffer, transform)
            for data in part:
                to.append(data)


class RetryingBundleManager(fn_runner.BundleManager):
    kill_after = 0.0

    def process_bundle(self, inputs, outputs, timers, output_timers, dry_run=False):
        context = self.bundle_context_manager
        for _ in range(4):
            attempt = self.bundle_context_manager = Attempt(context)
            processes = {id(h): h.process for h in context.worker_handlers}
            ended = threading.Event()
            if self.kill_after:
                threading.Thread(target=self.kill, args=(ended,), daemon=True).start()
            try:
                result = super().process_bundle(inputs, outputs, timers, output_timers, dry_run)
            except RuntimeError:
                handler = self._worker_handler
                lost = processes[id(handler)]
                if lost.poll() is None:
                    raise  # its own error, not its death
                handler.renew(lost)
                with lock:
                    events["retried"] += 1
                continue
            finally:
                ended.set()
                self.bundle_context_manager = context
            attempt.keep()
            return result
        raise RuntimeError("a bundle's workers died four times")

    def kill(self, ended):
        """Kills the bundle's worker once it has computed for a while, the first of a job."""
        while self._worker_handler is None:
            time.sleep(0.01)
        process = self._worker_handler.process
        begin = seconds(process)
        while not ended.wait(0.01):
            if process.poll() is not None or seconds(process) < begin + self.kill_after:
                continue
            with lock:
                if events["killed"] < events["jobs"]:
                    events["killed"] += 1
                    process.send_signal(signal.SIGKILL)
            return


fn_runner.BundleManager = RetryingBundleManager


class Job(local_job_service.BeamJob):
    workers = 1

    def _invoke_runner(self):
        runner = fn_runner.FnApiRunner(provision_info=self._provision_info)
        runner._num_workers = self.workers
        with lock:
            events["jobs"] += 1
        self.set_state(local_job_service.beam_job_api_pb2.JobState.RUNNING)
        return runner.run_via_runner_api(self._pipeline_proto, self.pipeline_options())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--port-file", required=True, help="the port is written here")
    p.add_argument("--events", required=True, help="what happened is written here, as JSON, at SIGTERM")
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--kill-after", type=float, default=0, help="processor seconds into a bundle; 0: never")
    a = p.parse_args()
    Job.workers = a.workers
    RetryingBundleManager.kill_after = a.kill_after
    service = local_job_service.LocalJobServicer(beam_job_type=Job)
    port = service.start_grpc_server(0)
    with open(a.port_file + ".new", "w") as f:
        f.write(str(port))
    os.rename(a.port_file + ".new", a.port_file)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    with open(a.events, "w") as f:
        json.dump(events, f)
    service.stop()
    os._exit(0)


main()
