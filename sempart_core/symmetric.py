"""Products with symmetric matrices that read half of them and leave Python's other threads running."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache

import numpy as np


class Symmetric:
    """``y = A x`` for a symmetric C-contiguous numpy matrix, reading one triangle, without the GIL.

    BLAS ``symv`` reads half of what ``gemv`` reads, and reading is the whole cost. It is called through
    SciPy's exported function pointers (``scipy.linalg.cython_blas``, a public C interface) rather than
    ``scipy.linalg.blas``, whose wrapper keeps the GIL, so that threads can work on other graphs.

    Parameters
    ----------
    A : numpy array
        ``N x N`` float32 or float64; not copied, must stay alive. Only its upper triangle is read.
    """

    def __init__(self, A: np.ndarray) -> None:
        real = ctypes.c_float if A.dtype == np.float32 else ctypes.c_double
        # 64 bits hold a BLAS integer of either width, as both are little-endian.
        n, one, zero, unit = ctypes.c_int64(A.shape[0]), real(1), real(0), ctypes.c_int64(1)
        self.call, self.dtype, self.A = _blas("ssymv" if A.dtype == np.float32 else "dsymv"), A.dtype, A
        ref = ctypes.byref
        # BLAS counts columns first: its lower triangle is our upper one.
        self.head = (b"L", ref(n), ref(one), A.ctypes.data, ref(n))
        self.unit, self.zero, self.keep = ref(unit), ref(zero), (n, one, zero, unit)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, dtype=self.dtype)
        y = np.empty_like(x)
        self.into(x.ctypes.data, y.ctypes.data)
        return y

    def into(self, x: int, y: int) -> None:
        """The same from address to address: ``N`` contiguous numbers of the type of ``A`` each."""
        self.call(*self.head, x, self.unit, self.zero, y, self.unit)


def each(operators: list[Symmetric], which: list[int], x: np.ndarray) -> np.ndarray:
    """Row ``i`` of ``x`` through operator ``which[i]``, in float64 outside and in the matrices' type inside."""
    dtype = operators[0].dtype
    x = np.ascontiguousarray(x, dtype=dtype)
    y = np.empty_like(x)
    step, a, b = x.strides[0], x.ctypes.data, y.ctypes.data
    for i, g in enumerate(which):
        operators[g].into(a + i * step, b + i * step)
    return y if dtype == np.float64 else y.astype(np.float64)


_lock = threading.Lock()


@cache
def _blas(name: str) -> Callable:
    """A BLAS function of the library SciPy is linked with, callable without the GIL."""
    from scipy.linalg import cython_blas

    with _lock:
        capsule = cython_blas.__pyx_capi__[name]
        get_name = ctypes.pythonapi.PyCapsule_GetName
        get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
        get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
        get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        address = get_pointer(capsule, get_name(capsule))
    p = ctypes.c_void_p
    return ctypes.CFUNCTYPE(None, ctypes.c_char_p, p, p, p, p, p, p, p, p, p)(address)
