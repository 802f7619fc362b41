"""The library of CUDA kernels, called without a framework.

The structures are those of custom_ops/runtime/call.h and custom_ops/runtime/cuda.h.
"""

import ctypes

from keras_learnact.kernels import library


class Call(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("outer", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("settings", ctypes.POINTER(ctypes.c_int64)),
        ("num_settings", ctypes.c_int64),
        ("key_words", ctypes.c_int),
    ]


class Error(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 320)]


_P, _BOOL = ctypes.c_void_p, ctypes.c_bool
_CALL, _ERROR = ctypes.POINTER(Call), ctypes.POINTER(Error)


class Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("random", _BOOL),
        ("pools", _BOOL),
        ("check", ctypes.CFUNCTYPE(_BOOL, _CALL, _ERROR)),
        ("forward", ctypes.CFUNCTYPE(_BOOL, _CALL, _P, _P, _P, _P, _P, _ERROR)),
        ("scratch_bytes", ctypes.CFUNCTYPE(ctypes.c_int64, _CALL)),
        ("backward", ctypes.CFUNCTYPE(_BOOL, _CALL, *[_P] * 8, _ERROR)),
    ]


def all_kernels():
    """The library's `CudaKernel`s by name."""
    loaded, why = library.open_library("cuda")
    assert loaded is not None, why
    loaded.keras_learnact_cuda_all.restype = ctypes.POINTER(ctypes.POINTER(Kernel))
    count = ctypes.c_int()
    found = loaded.keras_learnact_cuda_all(ctypes.byref(count))
    return {found[i].contents.name.decode(): found[i].contents for i in range(count.value)}
