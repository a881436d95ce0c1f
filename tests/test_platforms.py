"""What only some systems have is used behind a condition, so that the package can be imported on every system."""

import ast
from collections.abc import Iterator

import pytest
from launching import ROOT

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "readline", "syslog", "msvcrt", "winreg"}
ATTRIBUTES = {
    "os": {
        *("fork", "getuid", "geteuid", "getpgid", "killpg", "setsid", "sync", "nice", "mkfifo", "statvfs", "uname"),
        *("sched_getaffinity", "sched_setaffinity", "register_at_fork", "posix_fallocate", "posix_fadvise"),
    },
    "signal": {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "alarm", "pause", "sigwait"},
    "time": {"tzset", "clock_gettime"},
}


def unguarded(text: str) -> Iterator[str]:
    """Uses of such modules and attributes without a condition on the system around them."""
    yield from _unguarded(ast.parse(text), "")


def _unguarded(node: ast.AST, conditions: str) -> Iterator[str]:
    if isinstance(node, ast.If | ast.IfExp):
        conditions += ast.unparse(node.test)
    elif isinstance(node, ast.BoolOp):
        conditions += ast.unparse(node.values[0])
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module] if isinstance(node, ast.ImportFrom) else []
    for name in names:
        if name in MODULES and "os.name" not in conditions and "sys.platform" not in conditions:
            yield name
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner, name = node.value.id, node.attr
        if name in ATTRIBUTES.get(owner, ()) and not any(
            word in conditions for word in (f"hasattr({owner}, '{name}')", "os.name", "sys.platform")
        ):
            yield f"{owner}.{name}"
    for child in ast.iter_child_nodes(node):
        yield from _unguarded(child, conditions)


@pytest.mark.parametrize("package", ["streamvggt", "procedural_scenes"])
def test_no_module_of_the_package_needs_one_system(package):
    for path in (ROOT / "src" / package).rglob("*.py"):
        assert not [*unguarded(path.read_text(encoding="utf-8"))], path


def test_one_that_does_is_found():
    assert [*unguarded("import fcntl\nos.sync()\nsignal.signal(signal.SIGHUP, f)")] == [
        "fcntl",
        "os.sync",
        "signal.SIGHUP",
    ]
    assert not [*unguarded("if os.name == 'nt':\n    import msvcrt\nelse:\n    import fcntl")]
    assert not [*unguarded("n = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1")]
