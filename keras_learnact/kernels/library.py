"""Opens a compiled library, or says why it cannot be opened."""

import ctypes
import hashlib
import json
import os
import struct

from keras_learnact import kernels

INTERFACE = 2  # kInterface in custom_ops/runtime/call.h
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib")


def path(name):
    """Where the library `name`, say "xla", is when it is built."""
    return os.path.join(FOLDER, f"libkeras_learnact_{name}.so")


def missing(name, instead=kernels.FORMULAS):
    """Why a library that is not there is not there, or "" if it is.

    One that was built and is gone gives a warning that says what layers do instead.
    """
    if os.path.exists(path(name)):
        return ""
    file = os.path.basename(path(name))
    if file in _notes("checksums.json"):
        why = f"{path(name)} was built and is not there any more"
        kernels.warn(f"{why}. Build it anew: python custom_ops/build.py.", instead)
        return why
    why = _notes("not_built.json").get(file)
    return f"{file} is not built{f': {why}' if why else ' (python custom_ops/build.py builds it)'}"


def _notes(file):
    """What the build wrote beside the libraries: a dict by their files, empty if there is none."""
    try:
        with open(os.path.join(FOLDER, file)) as notes:
            return dict(json.load(notes))
    except (OSError, ValueError, TypeError):  # of another build, or none
        return {}


def open_library(name):
    """The `ctypes.CDLL` and "", or None and why not. The file must be there."""
    file = path(name)
    why = damage(name)
    if not why:
        try:
            return ctypes.CDLL(file), ""
        except OSError as e:
            why = str(e)
    return None, f"{file} cannot be loaded: {why}."


def fits(loaded, name):
    """Whether an open library has the functions, ops and handlers that this package calls."""
    try:
        return getattr(loaded, f"keras_learnact_{name}_interface")() == INTERFACE
    except AttributeError:
        return False


def refusal(check, number, count, settings):
    """Why a library does not take such a call, or "".

    Args:
        check: its function that says so.
        number: of the kernel.
        count: parameters of each group.
        settings: the kernel's.
    """
    check.argtypes = [
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_char_p,
        ctypes.c_int64,
    ]
    numbers = (ctypes.c_int64 * len(settings))(*settings)
    text = ctypes.create_string_buffer(512)
    check(number, count, numbers, len(settings), text, len(text))
    return text.value.decode()


def damage(name):
    """What is wrong with a library's file, or "" if nothing is seen.

    The system's loader believes what a file says of itself: of one that was cut short it would read
    pages that are not there, which ends the process.
    """
    file = path(name)
    try:
        with open(file, "rb") as f:
            header = f.read(64)
            size = f.seek(0, os.SEEK_END)
            if len(header) < 64 or header[:4] != b"\x7fELF":
                return "it is no shared library"
            own = _own_header()
            if own is not None and (header[4:6] != own[4:6] or header[18:20] != own[18:20]):
                return "it is for another kind of processor"
            if header[4:6] != b"\x02\x01":
                return ""  # not a 64-bit little-endian file: left to the loader
            segments_at, sections_at = struct.unpack_from("<QQ", header, 32)
            entry, count, section_entry, sections = struct.unpack_from("<HHHH", header, 54)
            ends = [sections_at + section_entry * sections, segments_at + entry * count]
            if max(ends) <= size and entry == 56:
                f.seek(segments_at)
                table = f.read(entry * count)
                for i in range(count):
                    _, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", table, entry * i)
                    ends.append(offset + length)
            if max(ends) > size:
                return f"it is cut short: {size} bytes of at least {max(ends)}"
            f.seek(0)
            content = f.read()
            built = _notes("checksums.json").get(os.path.basename(file))
            if built and hashlib.sha256(content).hexdigest() != built:
                return "it is not the file that was built, by its checksum"
            if f"keras_learnact_{name}_interface\0".encode() not in content:
                return "it is another library, or one of another version of keras_learnact"
    except OSError as e:
        return str(e)
    return ""


def _own_header():
    """The first bytes of the running program, where the system shows it."""
    try:
        with open("/proc/self/exe", "rb") as f:
            return f.read(64)
    except OSError:
        return None
