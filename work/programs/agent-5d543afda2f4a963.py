"""Measures .tflite models on the device it runs on.

A single file that is copied to the device. It needs Python 3.7, numpy and a TFLite runtime.

    python agent.py info                      describe this device as one JSON object
    python agent.py run JOB.json JOURNAL      run a job; events go to stdout and to the journal
    python agent.py serve RUNTIME FD PARENT   import a runtime and run the checks and rounds that are
                                              read from stdin; IDs and exit codes go to descriptor FD

A job is {"id", "rounds", "lock", "settings", "entries": [...]}. Every event is one JSON object a line:

    waiting   another job holds this device's lock
    start     job, host
    answers   entry, output, part, data: outputs for the entry's samples, in order, in base64:
              float32, or int16 where they are reduced to the index of the largest value
    check     entry, init_ms, agreement, max_error, samples, nodes [[operator, taken or left, why]],
              kernels
    round     entry, round, latency_ns [...], init_ms, first_ms, warmup_runs, stable,
              peak_rss_bytes, cpu_before, cpu_after
    failed    entry, round (null for a check), error
    end

Each check and each round runs in its own process, and a round visits all entries before the next
one begins, so that a crash, a drift or a throttled CPU does not affect a single entry only. These
processes are forks of one that has imported the runtime, which takes a Raspberry Pi a second; every
round has a new one, since the addresses of a process's memory can make it faster or slower. A journal
that already holds events of the same job is continued.
"""

import base64
import json
import os
import platform
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

PROTOCOL = 3
STATUS = struct.Struct("<q")  # A process ID or an exit code, from a server.
RUNTIMES = {
    "tflite-runtime": "tflite_runtime.interpreter",
    "ai-edge-litert": "ai_edge_litert.interpreter",
}
ARM_CORES = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}
MAX_RUNS_PER_ROUND = 10000
PART_BYTES = 750000  # In base64 1 MB: a line of this size passes every buffer on its way.
WINDOW = 10
STABLE_WITHIN = 0.05  # Larger than the scatter of medians of 10 runs, smaller than a clock change.


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None


def runtime_versions():
    """Read the versions of installed runtimes from the names of their metadata folders: Python 3.7
    has no importlib.metadata."""
    versions = {}
    for folder in sys.path:
        for file in os.listdir(folder) if os.path.isdir(folder) else ():
            match = re.match(r"(.+?)-([^-]+?)(-py[0-9.]+)?\.(dist|egg)-info$", file)
            name = match.group(1).replace("_", "-") if match else None
            if name in RUNTIMES:
                versions.setdefault(name, match.group(2))
    return versions


def proc_value(path, *names):
    """Return the first value in a file of "name : value" lines, such as those in /proc."""
    for name in names:
        for line in (read_text(path) or "").splitlines():
            field, _, value = line.partition(":")
            if field.strip() == name and value.strip():
                return value.strip()
    return None


def proc_bytes(path, name):
    value = proc_value(path, name)
    return int(value.split()[0]) * 1024 if value else None


def cpu_name():
    """Return the board, where Linux knows it, and the CPU core."""
    board = (read_text("/proc/device-tree/model") or "").rstrip("\0")
    board = "" if board.startswith("linux,") else board  # QEMU's "virt" machine is not a board.
    core = ARM_CORES.get(proc_value("/proc/cpuinfo", "CPU part"))
    parts = (board, core or proc_value("/proc/cpuinfo", "model name", "Hardware"))
    return ", ".join(name for name in parts if name) or platform.machine()


def info():
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count()
    return {
        "protocol": PROTOCOL,
        "machine": platform.machine(),
        "system": platform.system(),
        "release": platform.release(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "features": proc_value("/proc/cpuinfo", "Features", "flags"),
        "cores": cores,
        "memory_bytes": proc_bytes("/proc/meminfo", "MemTotal"),
        "governor": read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "runtimes": runtime_versions(),
    }


def cpu_state():
    """Return the current frequency, temperature and throttling; None where Linux lacks it."""
    khz = read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    cpuinfo_mhz = proc_value("/proc/cpuinfo", "cpu MHz")
    mhz = int(khz) / 1000.0 if khz else float(cpuinfo_mhz) if cpuinfo_mhz else None
    temperature = None
    for zone in range(8):
        value = read_text("/sys/class/thermal/thermal_zone%d/temp" % zone)
        if value and value.lstrip("-").isdigit():
            celsius = int(value) / 1000.0
            temperature = celsius if temperature is None else max(temperature, celsius)
    # Raspberry Pi firmware: bits 0-3 say that something limits the clock right now.
    value = read_text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    throttled = bool(int(value, 16) & 0xF) if value else None
    return {"mhz": mhz, "temperature_c": temperature, "throttled": throttled}


def peak_rss_bytes(imported_pages):
    """Return the peak memory of this process, and of the libraries' pages that its parent read when
    it imported them, which a fork does not count: a program that loads the model itself takes both.
    """
    import numpy

    peak = proc_bytes("/proc/self/status", "VmHWM") or 0
    missing = numpy.setdiff1d(imported_pages, file_pages())
    return peak + len(missing) * os.sysconf("SC_PAGESIZE")


def file_pages():
    """Return the numbers of the pages of files that are in this process's memory."""
    import numpy

    size, numbers = os.sysconf("SC_PAGESIZE"), [numpy.zeros(0, numpy.int64)]
    try:
        with open("/proc/self/maps", "rb") as maps, open("/proc/self/pagemap", "rb") as pagemap:
            for line in maps:
                fields = line.split()
                if len(fields) > 5 and fields[5].startswith(b"/"):
                    start, end = (int(address, 16) // size for address in fields[0].split(b"-"))
                    pagemap.seek(start * 8)
                    states = numpy.frombuffer(pagemap.read((end - start) * 8), "<u8") >> 61
                    numbers.append(start + numpy.flatnonzero(states & 5 == 5))  # A file's; present.
    except (OSError, ValueError):
        pass
    return numpy.concatenate(numbers)


def import_runtime(name):
    import importlib

    try:
        return importlib.import_module(RUNTIMES[name])
    except ImportError as error:
        raise RuntimeError("cannot import %s: %s" % (name, error))


def open_interpreter(request):
    """Load the model; return the interpreter and the milliseconds that loading took."""
    module = import_runtime(request["runtime"])
    options = {"model_path": request["model"], "num_threads": request["threads"]}
    delegate = request["delegate"]
    if delegate == "none":
        resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        options["experimental_op_resolver_type"] = resolver
    elif delegate != "xnnpack":
        loaded = module.load_delegate(delegate["library"], delegate.get("options", {}))
        options["experimental_delegates"] = [loaded]
    start = time.perf_counter()
    interpreter = module.Interpreter(**options)
    for index, shape in request.get("shapes") or ():
        interpreter.resize_tensor_input(index, shape)
    interpreter.allocate_tensors()
    return interpreter, (time.perf_counter() - start) * 1000


def quantize(values, details):
    """Convert float samples to the dtype of the model's input."""
    import numpy

    scale, zero_point = details["quantization"]
    dtype = details["dtype"]
    if numpy.issubdtype(dtype, numpy.integer) and scale:
        limits = numpy.iinfo(dtype)
        values = numpy.clip(numpy.round(values / scale) + zero_point, limits.min, limits.max)
    return values.astype(dtype)


def dequantize(values, details):
    """Convert an output to float32."""
    import numpy

    scale, zero_point = details["quantization"]
    if numpy.issubdtype(details["dtype"], numpy.integer) and scale:
        return (values.astype(numpy.float32) - zero_point) * scale
    return values.astype(numpy.float32)


def model_tensors(interpreter, request):
    """Return the details of inputs and of outputs, in the order of samples and answers."""
    sources = {details["index"]: details for details in interpreter.get_input_details()}
    targets = {details["index"]: details for details in interpreter.get_output_details()}
    if request.get("inputs"):
        return [sources[i] for i in request["inputs"]], [targets[i] for i in request["outputs"]]
    return list(sources.values()), list(targets.values())


def set_inputs(interpreter, request, samples, number):
    """Set the model's inputs to sample `number` of `samples`, one array [n, ...] per input."""
    for source, values in zip(model_tensors(interpreter, request)[0], samples):
        value = quantize(values[number], source).reshape([int(n) for n in source["shape"]])
        interpreter.set_tensor(source["index"], value)


def argmax(values):
    """Return the index of the largest value on the last axis; -1 where a value is not finite."""
    import numpy

    finite = numpy.isfinite(values).all(axis=-1)
    return numpy.where(finite, values.argmax(axis=-1), -1).astype(numpy.int16)


def infer(interpreter, request, samples, reduced=()):
    """Run samples, one array [n, ...] per input; return float32 [n, ...] per output.

    Outputs that are `reduced` become int16 indices, sample by sample: all could fill the memory.
    """
    import numpy

    _, targets = model_tensors(interpreter, request)
    results = [[] for _ in targets]
    reduced = reduced or [False] * len(targets)
    for number in range(len(samples[0])):
        if request.get("stateful"):
            interpreter.reset_all_variables()  # Samples are independent of one another.
        set_inputs(interpreter, request, samples, number)
        interpreter.invoke()
        for target, result, reduce in zip(targets, results, reduced):
            values = dequantize(interpreter.get_tensor(target["index"])[0], target)
            result.append(argmax(values) if reduce else values)
    return [numpy.stack(result) for result in results]


def read_arrays(path, kind, count=None):
    """Read the inputs ("x") or outputs ("y") of a samples file, in their order."""
    import numpy

    with numpy.load(path, allow_pickle=False) as stored:
        return [stored["%s%d" % (kind, i)][:count] for i in range(len(stored[kind + "_names"]))]


def check(request):
    """Compare the golden outputs and run the samples; the host evaluates their outputs."""
    interpreter, init_ms = open_interpreter(request)
    import numpy

    result = {"init_ms": init_ms}
    if not request.get("golden"):
        fill_inputs(interpreter, request)
        interpreter.invoke()
        return result
    count = request.get("golden_samples")
    golden_x, golden_y = (read_arrays(request["golden"], kind, count) for kind in "xy")
    outputs = infer(interpreter, request, golden_x)
    errors = numpy.zeros(len(golden_x[0]))
    for output, golden in zip(outputs, golden_y):
        if output.shape != golden.shape:
            raise RuntimeError(
                "output shape %s, expected %s" % (output.shape[1:], golden.shape[1:])
            )
        spread = float(golden.max() - golden.min()) or 1.0
        error = numpy.abs(output - golden).reshape(len(output), -1).max(axis=1) / spread
        errors = numpy.maximum(errors, numpy.where(numpy.isfinite(error), error, numpy.inf))
    result["agreement"] = float(numpy.mean(errors <= request["tolerance"]))
    result["max_error"] = min(float(errors.max()), 1e30)
    if request.get("samples"):
        x = read_arrays(request["samples"], "x")
        result["samples"] = len(x[0])
        if len(x[0]):
            outputs = infer(interpreter, request, x, request.get("reduced"))
            result["answers"] = [encode_outputs(output) for output in outputs]
    return result


def encode_outputs(outputs):
    """Encode outputs in base64, in parts that each fit into a line."""
    content = outputs.astype(outputs.dtype.newbyteorder("<")).tobytes()
    starts = range(0, len(content), PART_BYTES)
    return [base64.b64encode(content[i : i + PART_BYTES]).decode() for i in starts]


def fill_inputs(interpreter, request):
    """Set the inputs to a golden sample, else to random values; wide integers, which can be
    indices, to zero."""
    import numpy

    if request.get("golden"):
        set_inputs(interpreter, request, read_arrays(request["golden"], "x", 1), 0)
        return
    random = numpy.random.RandomState(0)
    for details in interpreter.get_input_details():
        shape = tuple(int(size) for size in details["shape"])
        dtype = numpy.dtype(details["dtype"])
        if dtype.kind == "f":
            values = random.uniform(0, 1, shape).astype(dtype)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            values = random.randint(0, 256, shape).astype(numpy.uint8).view(dtype)
        elif dtype.kind in "iub":
            values = numpy.zeros(shape, dtype)
        else:
            raise RuntimeError("cannot generate random inputs of dtype %s" % dtype)
        interpreter.set_tensor(details["index"], values)


def inference_ns(interpreter, stateful):
    if stateful:
        interpreter.reset_all_variables()
    start = time.perf_counter_ns()
    interpreter.invoke()
    return max(1, time.perf_counter_ns() - start)  # A coarse clock can measure 0.


def warm_up(interpreter, settings, stateful):
    """Run until the medians of two windows agree; return the number of runs and whether they did."""
    times = []
    start = time.perf_counter()
    shortest, longest = settings["warmup_seconds"], settings["warmup_seconds"] * 4 + 1
    while True:
        times.append(inference_ns(interpreter, stateful))
        spent = time.perf_counter() - start
        last, before = times[-WINDOW:], times[-2 * WINDOW : -WINDOW]
        stable = not shortest  # A warm-up of 0 s does not wait for stable latencies.
        if len(before) == WINDOW:
            change = abs(statistics.median(last) - statistics.median(before))
            stable = stable or change <= STABLE_WITHIN * statistics.median(last)
        enough = len(times) >= settings["warmup_runs"] and spent >= shortest
        if enough and (stable or spent >= longest):
            return len(times), stable


def measure(request):
    """Run one round: load, warm up, time."""
    settings = request["settings"]
    interpreter, init_ms = open_interpreter(request)
    fill_inputs(interpreter, request)
    stateful = request.get("stateful")
    first_ms = inference_ns(interpreter, stateful) / 1e6
    warmup_runs, stable = warm_up(interpreter, settings, stateful)
    before = cpu_state()
    latencies = []
    end = time.perf_counter() + settings["seconds"]
    while len(latencies) < MAX_RUNS_PER_ROUND and (
        len(latencies) < settings["runs"] or time.perf_counter() < end
    ):
        latencies.append(inference_ns(interpreter, stateful))
    return {
        "latency_ns": latencies,
        "init_ms": init_ms,
        "first_ms": first_ms,
        "warmup_runs": warmup_runs,
        "stable": stable,
        "peak_rss_bytes": peak_rss_bytes(request["imported_pages"]),
        "cpu_before": before,
        "cpu_after": cpu_state(),
    }


def die_with_parent(parent):
    """Make Linux kill this process when its parent ends."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        pass
    if os.getppid() != parent:  # It ended before the call above.
        os._exit(1)


def serve(runtime, status, parent):
    """Import a runtime, then run each request of stdin, a line of JSON, in a fork of this process.

    The ID of each process and its exit code, the negative signal where it crashed, go to the
    descriptor `status`.
    """
    die_with_parent(parent)
    failure, imported_pages, this = None, (), os.getpid()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # Threads of numpy's BLAS would not survive a fork.
    try:
        import_runtime(runtime)
        imported_pages = file_pages()
    except Exception as error:
        failure = error
    for line in iter(sys.stdin.readline, ""):
        process = os.fork()
        if process == 0:
            os.close(status)
            die_with_parent(this)
            run_request(dict(json.loads(line), imported_pages=imported_pages), failure)
        os.write(status, STATUS.pack(process))
        code = os.waitpid(process, 0)[1]
        code = -os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)
        os.write(status, STATUS.pack(code))
    return 0


def run_request(request, failure):
    """Run one check or round in this process; the result goes to the file that is requested."""
    try:
        with open("/proc/self/comm", "wb") as file:  # What `top` and `ps` call this process.
            file.write(request["entry"].encode("utf-8", "replace")[:15])
    except OSError:
        pass
    try:
        if failure is not None:
            raise failure
        result = {"check": check, "round": measure}[request["kind"]](request)
    except MemoryError:
        result = {"error": "out of memory"}
    except Exception as error:
        result = {"error": ("%s: %s" % (type(error).__name__, error))[:2000]}
    with open(request["result"], "w", encoding="utf-8") as file:
        json.dump(result, file)
        file.flush()
        os.fsync(file.fileno())
    # A crash in a runtime's destructors must not discard the result.
    os._exit(0)


class Server:
    """A process that has imported a runtime; see serve()."""

    def __init__(self, runtime):
        self.fork = None
        self.output = tempfile.TemporaryFile()
        self.status, status = os.pipe()
        arguments = [os.path.abspath(__file__), "serve", runtime, str(status), str(os.getpid())]
        try:
            self.process = subprocess.Popen(
                [sys.executable] + arguments,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=self.output,
                stderr=subprocess.STDOUT,
                pass_fds=(status,),
            )
        except BaseException:
            os.close(self.status)
            raise
        finally:
            os.close(status)

    def run(self, request, limit):
        """Return the exit code of the request's process, or None after `limit` seconds."""
        deadline = time.monotonic() + limit
        self.output.seek(0)  # The processes write where this one's descriptor stands, too.
        self.output.truncate()
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            pass  # It has ended; so says its exit code.
        for name in ("fork", "code"):
            if not select.select([self.status], [], [], max(0, deadline - time.monotonic()))[0]:
                return None
            answer = os.read(self.status, STATUS.size)
            if not answer:
                return self.process.wait()
            (number,) = STATUS.unpack(answer)
            self.fork = number if name == "fork" else None
        return number

    def kill(self):
        """Kill and reap; without Popen.wait, whose lock can be held when a signal arrives."""
        if self.process.returncode is None:
            for pid in filter(None, (self.fork, self.process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            try:
                os.waitpid(self.process.pid, 0)
            except OSError:
                pass
            self.process.returncode = -signal.SIGKILL

    def close(self):
        self.kill()
        os.close(self.status)
        self.output.close()


class Agent:
    """Runs a job's processes one after another and emits their events."""

    def __init__(self, job, journal_path):
        self.job = job
        self.journal_path = journal_path
        self.done = set()
        self.failed = set()
        self.servers = {}
        self.journal = None
        self.lock_file = None
        self.starting = False
        self.pending_signal = None

    def emit(self, event):
        self.write(json.dumps(event, allow_nan=False) + "\n")

    def write(self, text):
        self.journal.write(text)
        self.journal.flush()
        sys.stdout.write(text)
        sys.stdout.flush()

    def resume(self):
        """Emit the events of an earlier journal of this job again; return whether there was one."""
        lines = []
        for line in (read_text(self.journal_path) or "").split("\n"):
            try:
                event = json.loads(line)
            except ValueError:
                break
            if event["event"] == "end" or (not lines and event.get("job") != self.job["id"]):
                break
            lines.append(line + "\n")
            if event["event"] == "failed":
                self.failed.add(event["entry"])
            if event["event"] != "answers":  # They precede their check, which can be missing.
                self.done.add((event.get("entry"), event.get("round")))
        self.journal = open(self.journal_path, "w", encoding="utf-8")
        self.write("".join(lines))
        return bool(lines)

    def lock(self):
        """Wait for the device's lock: two jobs at the same time would slow each other down."""
        import fcntl

        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        self.lock_file = os.fdopen(os.open(self.job["lock"], flags, 0o644), "a")
        try:
            fcntl.flock(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(json.dumps({"event": "waiting"}), flush=True)
            fcntl.flock(self.lock_file, fcntl.LOCK_EX)

    def run(self):
        if self.job.get("lock"):
            self.lock()
        if not self.resume():
            self.emit({"event": "start", "job": self.job["id"], "host": info()})
        entries = self.job["entries"]
        for entry in entries:
            self.step("check", entry, None)
        self.close_servers()
        for number in range(self.job["rounds"]):
            # Each round starts with another entry, so that no entry is always the first.
            shift = number % max(1, len(entries))
            for entry in entries[shift:] + entries[:shift]:
                self.step("round", entry, number)
            self.close_servers()
        self.emit({"event": "end"})

    def step(self, kind, entry, number):
        name = entry["entry"]
        if name in self.failed or (name, number) in self.done:
            return
        result = self.run_process(dict(entry, kind=kind, settings=self.job["settings"]))
        if "error" in result:
            self.failed.add(name)
            kind = "failed"
        about = {"event": kind, "entry": name}
        if kind != "check":
            about["round"] = number
        for output, parts in enumerate(result.pop("answers", ())):
            for part, data in enumerate(parts):
                self.emit(dict(about, event="answers", output=output, part=part, data=data))
        self.emit(dict(about, **result))

    def run_process(self, request):
        """Run a check or a round in its own process; return its result, or its error."""
        handle, path = tempfile.mkstemp(suffix=".json", dir=os.path.dirname(self.journal_path))
        os.close(handle)
        try:
            server = self.server(request["runtime"])
            limit = request["settings"]["timeout_seconds"]
            code = server.run(dict(request, result=path), limit)
            if code is None:
                self.servers.pop(request["runtime"]).close()
                return {"error": "no result after %g s" % limit}
            report, output = read_output(server.output)
            text = read_text(path)
            if code == 0 and text:
                result = json.loads(text)
                if request["kind"] == "check" and "error" not in result:
                    result.update(report)
                return add_runtime_error(result, output)
            return {"error": crash_text(code, output)}
        except (OSError, ValueError) as error:
            return {"error": "measuring process failed: %s" % error}
        finally:
            if os.path.exists(path):
                os.remove(path)

    def server(self, runtime):
        """Return the process that has imported a runtime; start it where there is none."""
        if runtime in self.servers and self.servers[runtime].process.poll() is not None:
            # It crashed when it imported the runtime, or Linux ended it when memory ran out.
            self.servers.pop(runtime).close()
        if runtime not in self.servers:
            self.starting = True
            try:
                self.servers[runtime] = Server(runtime)
            finally:
                self.starting = False
            if self.pending_signal is not None:  # It arrived before Popen returned.
                self.handle_signal(self.pending_signal, None)
        return self.servers[runtime]

    def handle_signal(self, number, _):
        """End the measuring processes, then this one."""
        if self.starting:
            self.pending_signal = number
            return
        for server in self.servers.values():
            server.kill()
        os._exit(128 + number)

    def close_servers(self):
        while self.servers:
            self.servers.popitem()[1].close()


def read_output(file):
    """Return the report of edgesparse's delegate in an output larger than memory, and its end."""
    file.seek(0)
    report, end = {"nodes": []}, ""
    for line in iter(lambda: file.readline(8192).decode("utf-8", "replace"), ""):
        end, fields = (end + line)[-4000:], line.rstrip().split("\t")
        if fields[0] == "edgesparse-node" and len(fields) > 4 and len(report["nodes"]) < 5000:
            report["nodes"].append(fields[2:5])
        for name in re.findall(r"^edgesparse: .* kernels (\w{1,40})$", line.rstrip()):
            report["kernels"] = name
    return {name: value for name, value in report.items() if value}, end.strip()


def add_runtime_error(result, output):
    """Add the runtime's error message, which is often on stderr only."""
    hints = [line for line in output.splitlines() if line.startswith("ERROR")]
    if "error" in result and hints and hints[-1][7:40] not in result["error"]:
        result["error"] += " (" + hints[-1][:300] + ")"
    return result


def crash_text(code, output):
    """Describe the exit code of a measuring process that left no result."""
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return "the runtime crashed (%s)" % names.get(-code, "signal %d" % -code)
    last = output.splitlines()[-1][:300] if output else "no output"
    return "measuring process failed with exit code %s: %s" % (code, last)


def main(argv):
    os.umask(os.umask(0) | 0o022)
    if argv[:1] == ["info"]:
        print(json.dumps(info()))
        return 0
    if argv[:1] == ["serve"] and len(argv) == 4:
        return serve(argv[1], int(argv[2]), int(argv[3]))
    if argv[:1] != ["run"] or len(argv) != 3:
        sys.stderr.write(__doc__)
        return 2
    with open(argv[1], encoding="utf-8") as file:
        agent = Agent(json.load(file), argv[2])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, agent.handle_signal)
    try:
        agent.run()
    except BrokenPipeError:
        # The host is gone; the journal keeps the finished rounds.
        agent.close_servers()
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
