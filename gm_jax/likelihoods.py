"""Drawing from the distributions that models put out, where speed on every device matters.

Half the time of a restricted Boltzmann machine on a CPU is spent in making random numbers, because XLA runs the
twenty rounds of the Threefry hash (Salmon et al. 2011) as a loop over memory. Written out round by round, the same hash
fuses with the comparison that consumes it and becomes several times faster; the bits are those of ``jax.random.bits``,
word for word, so that nothing is given up: not the quality, and not that a draw is the same alone, under ``vmap`` and
on another device.
"""

import math

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def random_bits(key: Key, shape: tuple[int, ...]) -> Array:
  """Uniform 32-bit words, equal to ``jax.random.bits(key, shape, 'uint32')`` and cheaper where XLA can fuse them.

  Args:
    key: any JAX key; the fast path is for the default kind (Threefry, partitionable), others go to ``jax.random``.
    shape: the shape of the result.

  Returns:
    A ``uint32`` array. Word i is ``a ^ b`` where ``(a, b)`` is the Threefry-2x32 hash of the counter i.
  """
  typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
  implementation = str(jax.random.key_impl(key)) if typed else jax.config.jax_default_prng_impl
  size = math.prod(shape)
  if 'threefry2x32' not in implementation or not jax.config.jax_threefry_partitionable or not 0 < size < 2**32:
    return jax.random.bits(key, shape, 'uint32')
  first, second = jax.random.key_data(key) if typed else key
  low = jax.lax.iota(jnp.uint32, size).reshape(shape)
  return jnp.bitwise_xor(*_threefry(first, second, jnp.zeros_like(low), low))


def _threefry(first: Array, second: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
  """Threefry-2x32 with twenty rounds: the counters (x0, x1) hashed under the key (first, second)."""
  keys = (first, second, first ^ second ^ jnp.uint32(_PARITY))
  x0, x1 = x0 + keys[0], x1 + keys[1]
  for i in range(5):
    for rotation in _ROTATIONS[i % 2]:
      x0 = x0 + x1
      x1 = x0 ^ ((x1 << rotation) | (x1 >> (32 - rotation)))
    x0, x1 = x0 + keys[(i + 1) % 3], x1 + keys[(i + 2) % 3] + jnp.uint32(i + 1)
  return x0, x1


@jax.custom_jvp
def softplus(x: Array) -> Array:
  """log(1 + exp(x)) to full precision, several times cheaper than ``jax.nn.softplus``; the derivative is sigmoid."""
  return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
  return softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]


def softplus_gap(x: Array, low: Array, high: Array) -> Array:
  """softplus(high x) - softplus(low x) for 0 <= low <= high, to full *relative* precision.

  Annealing adds up thousands of such gaps. The difference of two float32 softplus errs by about 1e-8 per unit, mostly
  to one side: 0.03 nats over 500 units and 14,500 temperatures. With x <= 0 the gap is
  ``log1p(sigmoid(low x) expm1((high - low) x))``, and ``softplus(x) = x + softplus(-x)`` gives the other half.
  """
  minus, step = -jnp.abs(x), high - low
  return step * jnp.maximum(x, 0) + jnp.log1p(jax.nn.sigmoid(low * minus) * jnp.expm1(step * minus))


def sample_bernoulli(key: Key, logits: Array) -> Array:
  """Draws x in {0, 1} with p(x = 1) = sigmoid(logits), as numbers of the logits' type.

  With a uniform u, ``u < sigmoid(a)`` says ``u exp(-a) < 1 - u``: no division, and 1 - u is read off the inverted bits
  so that both tails are kept to 2^-32.

  Args:
    key: a key.
    logits: log-odds, of any shape and floating type.
  """
  logits = jnp.asarray(logits)
  bits = random_bits(key, logits.shape)
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  return (bits.astype(dtype) * jnp.exp(-logits.astype(dtype)) < (~bits).astype(dtype)).astype(logits.dtype)


def sample_categorical(key: Key, logits: Array) -> Array:
  """Draws the index of one of K classes with p(k) = softmax(logits)_k, by a race of exponentials.

  Class k arrives at time E_k / p_k with E_k ~ Exp(1); the first to arrive is a draw (the Gumbel-max trick).

  Args:
    key: a key.
    logits: unnormalised log-probabilities, ``[..., K]``.

  Returns:
    ``int32`` indices of shape ``[...]``.
  """
  logits = jnp.asarray(logits)
  uniform = jnp.minimum((random_bits(key, logits.shape).astype(jnp.float32) + 0.5) * 2.0**-32, 1 - 2.0**-24)
  return jnp.argmax(logits - jnp.log(-jnp.log1p(-uniform)), axis=-1).astype(jnp.int32)
