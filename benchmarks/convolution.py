"""Times the gradient of a convolution within a compiled loop, XLA's and ours, and XLA's outside of it.

  python -m benchmarks.convolution --core=0

Processor milliseconds of the gradient of a 3 x 3 convolution, of 64 images of 14 x 14 with 32 channels in and out, with
respect to both arguments. Within a loop is how models learn here.
"""

from benchmarks import pairs

STEPS = 4


def gradient(convolve, in_a_loop):
  """Milliseconds of one gradient."""
  import jax

  x = jax.random.normal(jax.random.key(0), (64, 14, 14, 32))
  kernel = 0.05 * jax.random.normal(jax.random.key(1), (3, 3, 32, 32))
  slope = jax.grad(lambda pair: (convolve(*pair, (1, 1), 'SAME') ** 2).sum())
  step = lambda pair: jax.tree.map(lambda a, b: a - 1e-9 * b, pair, slope(pair))
  if in_a_loop:
    run = jax.jit(lambda pair: jax.lax.scan(lambda pair, _: (step(pair), None), pair, None, length=STEPS)[0])
  else:
    run = jax.jit(step)
  return pairs.timed(
    lambda: jax.block_until_ready(run((x, kernel))), repeats=3, scale=1e3 / (STEPS if in_a_loop else 1)
  )


def plain(*arguments):
  """XLA's convolution, with the gradients of its own."""
  import jax

  from gm_jax.nn.convolution import LAYOUT

  return jax.lax.conv_general_dilated(*arguments, dimension_numbers=LAYOUT)


def ours(*arguments):
  """The same with the gradients written out."""
  from gm_jax.nn.convolution import convolve

  return convolve(*arguments)


CASES = {
  'xla in a loop': lambda: gradient(plain, True),
  'xla alone': lambda: gradient(plain, False),
  'gm_jax in a loop': lambda: gradient(ours, True),
}
PAIRS = [('xla in a loop', 'gm_jax in a loop', None), ('xla alone', 'gm_jax in a loop', None)]


if __name__ == '__main__':
  pairs.main('benchmarks.convolution', __doc__, CASES, PAIRS, OMP_NUM_THREADS='1')
