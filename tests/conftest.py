"""Settings of all tests, made before JAX starts: two emulated devices, quick compilation, a cache for what comes twice.

Most of the time of the tests is compilation. It takes half as long without XLA's optimisations, and half of that again
with its older emitters of fused loops. Set ``JAX_COMPILATION_CACHE_DIR`` to keep what is compiled from one run of the
tests to the next.
"""

import os
import tempfile

_cache = tempfile.TemporaryDirectory(prefix='gm-jax-compiled-')
_flags = (
  '--xla_backend_optimization_level=0',
  '--xla_cpu_use_fusion_emitters=false',
  os.environ.get('XLA_FLAGS', ''),
  '--xla_force_host_platform_device_count=2',
)
os.environ.update(
  {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': ' '.join(_flags),
    'JAX_COMPILATION_CACHE_DIR': os.environ.get('JAX_COMPILATION_CACHE_DIR', _cache.name),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
  }
)
