"""What a child that was taken over might try, each from inside the sandbox; see test_sandbox.py.

Run as `python attacker.py PID ADDRESS PORT FOLDER [NAME ...]`: of the parent, of eleven bytes in
its memory, of a listener on loopback and of a folder with the files `victim` and `program`. It
gives up everything with the decoder's own function, tries each attempt, and writes a JSON object to
standard output: by the attempt's name "done", or the name of the error. With names it gives up
nothing and tries those alone. None would harm a machine that lets it through.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from xray_watcher.imaging.decode_worker import confine_child

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
NUMBERS = {  # on x86_64 and aarch64
    "unlinkat": (263, 35),
    "renameat2": (316, 276),
    "execveat": (322, 281),
    "clone3": (435, 435),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "mount": (165, 40),
    "fsopen": (430, 430),
    "shmget": (29, 194),
    "memfd_create": (319, 279),
    "unshare": (272, 97),
    "setns": (308, 268),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "inotify_init1": (294, 26),
    "setsid": (112, 157),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "dup": (32, 23),
    "sendmsg": (46, 211),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "tgkill": (234, 131),
    "personality": (135, 92),
    "kcmp": (312, 272),
    "pkey_mprotect": (329, 288),
    "msgget": (68, 186),
    "init_module": (175, 105),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "settimeofday": (164, 170),
    "setuid": (105, 146),
}


def call(name: str, *arguments: object) -> int:
    """A system call by its name; an error becomes an OSError."""
    number = NUMBERS[name][os.uname().machine == "aarch64"]
    if number is None:
        raise PermissionError(errno.EPERM, "no such call on this machine")
    done = int(libc.syscall(ctypes.c_long(number), *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done


def map_memory(protection: int, flags: int, descriptor: int = -1) -> int:
    """Map a page; an error becomes an OSError."""
    found = libc.mmap(None, ctypes.c_size_t(4096), protection, flags, descriptor, ctypes.c_long(0))
    if found is None or found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return int(found)


def protect(address: int, protection: int) -> None:
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), protection):
        raise OSError(ctypes.get_errno(), "mprotect")


def connect(family: int, address: object) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        connection.connect(address)  # type: ignore[arg-type]


def bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))


def in_new_process(work: Callable[[], None]) -> None:
    if os.fork() == 0:
        work()
        os._exit(0)


def write(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"mine")


def overwrite(parent: int, address: int) -> None:
    memory = os.open(f"/proc/{parent}/mem", os.O_RDWR)
    os.pwrite(memory, b"score: High", address)


def memfd_and_exec(program: str) -> None:
    found = call("memfd_create", b"x", 0)
    os.execve(found, [program], {})


def attempts(
    parent: int, address: int, port: int, folder: str, held: int, other: int
) -> dict[str, Callable[[], object]]:
    """By name; `held` is an open file that may be read only, `other` a socket."""
    victim, program = f"{folder}/victim", f"{folder}/program"
    buffer = ctypes.create_string_buffer(4096)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    read_write_run = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    data = map_memory(mmap.PROT_READ | mmap.PROT_WRITE, private)
    word, none = ctypes.c_ulong, ctypes.c_void_p(None)
    by_name: dict[str, Callable[[], object]] = {
        "open a file": lambda: os.open(victim, os.O_RDONLY),
        "open its own memory": lambda: os.open("/proc/self/mem", os.O_RDWR),
        "open the held file anew": lambda: os.open(f"/proc/self/fd/{held}", os.O_RDWR),
        "create a file": lambda: write(f"{folder}/new"),
        "write into a file": lambda: os.open(victim, os.O_WRONLY),
        "write into the held file": lambda: os.write(held, b"mine"),
        "truncate the held file": lambda: os.ftruncate(held, 0),
        "rename": lambda: os.rename(victim, f"{folder}/moved"),
        "rename (renameat2)": lambda: call(
            "renameat2", -100, victim.encode(), -100, f"{folder}/moved".encode(), 0
        ),
        "unlink": lambda: os.unlink(victim),
        "unlink (unlinkat)": lambda: call("unlinkat", -100, victim.encode(), 0),
        "link": lambda: os.link(victim, f"{folder}/link"),
        "symlink": lambda: os.symlink(victim, f"{folder}/link"),
        "mkdir": lambda: os.mkdir(f"{folder}/sub"),
        "chmod": lambda: os.chmod(victim, 0o777),
        "chmod of the held file": lambda: os.fchmod(held, 0o777),
        "utime of the held file": lambda: os.utime(held),
        "extended attribute": lambda: os.setxattr(held, "user.x", b"1"),
        "stat": lambda: os.stat(victim),
        "list a folder": lambda: os.listdir(folder),
        "change folder": lambda: os.chdir(folder),
        "connect to loopback": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
        "connect outside": lambda: connect(socket.AF_INET, ("192.0.2.1", 443)),
        "connect to a local socket": lambda: connect(socket.AF_UNIX, "\0here"),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "bind": bind,
        "use a socket it holds": lambda: call("sendmsg", other, buffer, 0),
        "send on the socket of requests": lambda: os.write(0, b"mine"),
        "read from another socket": lambda: socket.socket(fileno=other).recvmsg(1),
        "write to the error output": lambda: os.write(2, b"mine"),
        "exec": lambda: os.execv(program, [program]),
        "exec (execveat)": lambda: call("execveat", -100, program.encode(), none, none, 0),
        "memfd and exec": lambda: memfd_and_exec(program),
        "fork": lambda: in_new_process(lambda: None),
        "spawn": lambda: os.posix_spawn(program, [program], {}),
        "clone3": lambda: call("clone3", buffer, 64),
        "signal 0 to the parent": lambda: os.kill(parent, 0),
        "a signal to the parent": lambda: os.kill(parent, signal.SIGWINCH),
        "a signal to its thread": lambda: call("tgkill", parent, parent, signal.SIGWINCH),
        "a signal to all": lambda: os.kill(-1, 0),
        "a signal by pidfd": lambda: call("pidfd_send_signal", held, 0, none, 0),
        "ptrace": lambda: call("ptrace", word(16), word(parent), none, none),
        "write the parent's memory (/proc)": lambda: overwrite(parent, address),
        "read the parent's memory (process_vm)": lambda: call(
            "process_vm_readv", parent, buffer, word(1), buffer, word(1), word(0)
        ),
        "write the parent's memory (process_vm)": lambda: call(
            "process_vm_writev", parent, buffer, word(1), buffer, word(1), word(0)
        ),
        "a handle on the parent (pidfd_open)": lambda: call("pidfd_open", parent, 0),
        "the parent's descriptors (pidfd_getfd)": lambda: call("pidfd_getfd", held, 0, 0),
        "compare with the parent (kcmp)": lambda: call("kcmp", parent, parent, 0, 0, 0),
        "limits of the parent": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (1, 1)),
        "raise its own limits": lambda: resource.setrlimit(
            resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        ),
        "map memory that runs": lambda: map_memory(read_write_run, private),
        "map a file": lambda: map_memory(mmap.PROT_READ, mmap.MAP_PRIVATE, held),
        "map a file that runs": lambda: map_memory(
            mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, held
        ),
        "make memory run": lambda: protect(data, mmap.PROT_READ | mmap.PROT_EXEC),
        "make memory run (pkey)": lambda: call("pkey_mprotect", none, word(4096), 4, -1),
        "io_uring": lambda: call("io_uring_setup", 8, buffer),
        "bpf": lambda: call("bpf", 0, buffer, 128),
        "keyctl": lambda: call("keyctl", 0, -3, 0),
        "add_key": lambda: call("add_key", b"user", b"x", b"x", word(1), -3),
        "mount": lambda: call("mount", b"none", folder.encode(), b"tmpfs", word(0), none),
        "mount (fsopen)": lambda: call("fsopen", b"tmpfs", 0),
        "shared memory": lambda: call("shmget", 0, word(4096), 0o1600),
        "message queue": lambda: call("msgget", 0, 0o1600),
        "memfd": lambda: call("memfd_create", b"x", 0),
        "unshare": lambda: call("unshare", word(0x10000000)),
        "setns": lambda: call("setns", held, 0),
        "userfaultfd": lambda: call("userfaultfd", 1),
        "perf_event_open": lambda: call("perf_event_open", buffer, 0, -1, -1, word(0)),
        "watch a folder": lambda: call("inotify_init1", 0),
        "setsid": lambda: call("setsid"),
        "setuid": lambda: call("setuid", 0),
        "dumpable again": lambda: call("prctl", 4, word(1), word(0), word(0), word(0)),
        "a filter of its own": lambda: call("seccomp", 1, 0, buffer),
        "another personality": lambda: call("personality", word(0x0400000)),
        "type into a terminal": lambda: call("ioctl", 0, word(0x5412), buffer),
        "send signals by a descriptor": lambda: call("fcntl", held, 8, parent),
        "one more descriptor": lambda: call("dup", held),
        "other time": lambda: call("settimeofday", word(1), none),
        "other host name": lambda: call("sethostname", b"x", -1),
        "module": lambda: call("init_module", buffer, word(8), b""),
        "reboot": lambda: call("reboot", 0, 0, 0, none),
    }
    return by_name


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except ValueError as error:  # as `resource` has it
        return "EPERM" if "not allowed" in str(error) else repr(error)
    except Exception as error:  # noqa: BLE001 - there is no error output any longer
        return repr(error)
    return "done"


def main() -> None:
    parent, address, port, folder, *names = sys.argv[1:]
    held = os.open(f"{folder}/victim", os.O_RDONLY)
    other, far = socket.socketpair()
    tried = attempts(int(parent), int(address), int(port), folder, held, other.fileno())
    if not names:
        confine_child(1 << 30, 0)
    found = {name: outcome(tried[name]) for name in names or tried}
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(far.fileno() < 0)


if __name__ == "__main__":
    main()
