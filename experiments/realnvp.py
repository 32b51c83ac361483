"""Real NVP: affine or spline couplings of vectors, and of images at several scales.

The test log-likelihood is exact. Of grey images it is that of the dequantised values in the space of the flow, and bits
per dimension are of the original values.

  python -m experiments.realnvp                                          two moons, beside their true density
  python -m experiments.realnvp --transform=spline --dataset=pinwheel
  python -m experiments.realnvp --dataset=digits --architecture=images   several scales
"""

from absl import flags as absl_flags

from experiments import activations, cli, common_flags, flow_data, flows
from gm_jax import data as datasets
from gm_jax.flows import flow, realnvp

ARCHITECTURES = ('dense', 'images')


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  help = 'Couplings of vectors, or of images at several scales.'
  absl_flags.DEFINE_enum('architecture', ARCHITECTURES[0], ARCHITECTURES, help, flag_values=flags)
  flows.define_layer_flags(flags, 8, ['64', '64'])
  flows.define_transform_flags(flags)
  help = 'Of the networks (dense); with tanh what they answer stays bounded far from the data.'
  activations.define_flag(flags, 'relu', help)
  absl_flags.DEFINE_bool('batch_norm', False, 'Batch normalisation behind each coupling (dense).', flag_values=flags)
  define_image_flags(flags, 2, 2, 32)
  flows.define_flags(flags)


def define_image_flags(flags: absl_flags.FlagValues, num_levels: int, num_steps: int, num_hidden: int) -> None:
  """The flags of flows of images."""
  absl_flags.DEFINE_integer('num_levels', num_levels, 'Scales of images.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_integer('num_flow_steps', num_steps, 'Steps at each scale.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_integer('num_hidden', num_hidden, 'Channels of the networks.', lower_bound=1, flag_values=flags)


def image_shape(dataset: datasets.Dataset) -> tuple[int, int, int]:
  """The shape of an image.

  Raises:
    ValueError: if the data are no images.
  """
  if len(dataset.shape) != 3:
    raise ValueError(f'dataset={dataset.name!r} has examples of shape {dataset.shape}: this needs images (H, W, C)')
  return dataset.shape


def make_module(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> flow.Flow:
  """The flow that the flags and the data ask for."""
  classes = flow_data.context_size(flags, dataset)
  if flags.architecture == 'images':
    return realnvp.images(
      image_shape(dataset), flags.num_levels, flags.num_flow_steps, flags.num_hidden, context_size=classes
    )
  return realnvp.dense(
    flow_data.num_dimensions(dataset), flags.num_layers, common_flags.whole_numbers(flags, 'hidden_sizes'),
    transform=flows.transform(flags), activation=activations.ACTIVATIONS[flags.activation],
    batch_norm=flags.batch_norm, context_size=classes,
  )  # fmt: skip


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  calibrated = flags.batch_norm and flags.architecture == 'dense'
  return flows.experiment(flags, dataset, make_module(flags, dataset), axis_name, calibrated=calibrated)


BINARY = cli.Binary(
  name='realnvp', doc=__doc__, define_flags=define_flags, build=build,
  defaults={'dataset': 'two_moons', 'num_epochs': 60, 'learning_rate': 3e-3},
)  # fmt: skip

if __name__ == '__main__':
  cli.main(BINARY)
