"""The families of convolutional networks on recordings."""

from __future__ import annotations

from app.domain.families.declaration import ACTIVATIONS, Family, choice, flag, float_parameter, int_parameter
from app.domain.families.shared import OPTIMIZATION, REGULARIZATION

AUDIO_CNN = Family(
    name="audio-cnn",
    version="1",
    description="Waveforms as log-mel spectrograms, on which convolutions with pooling and a dense head work.",
    hyperparameters=(
        int_parameter("frame_length", 256, 16, 8_192, "Samples of a spectrogram's frame, in a Hann window."),
        int_parameter("frame_step", 128, 32, 8_192, "Samples from the beginning of a frame to that of the next."),
        int_parameter("mel_bands", 32, 2, 128, "Bands of the mel scale, from 20 Hz to half the sample rate."),
        int_parameter("conv_layers", 3, 1, 8, "Convolutional layers; the filters double from each to the next."),
        int_parameter("filters", 8, 1, 1_024, "Filters of the first convolution."),
        int_parameter("kernel_size", 3, 1, 15, "Frames and bands that each kernel covers."),
        choice("pooling", "max", ("max", "average", "none"), "2×2 pooling after each convolution.", structural=True),
        int_parameter("dense_units", 64, 0, 16_384, "Units of the dense layer before the output; 0 leaves it out."),
        choice("activation", "relu", ACTIVATIONS, "Activation of every hidden layer.", structural=False),
        flag("batch_norm", "Batch normalisation between each hidden layer and its activation."),
        float_parameter(
            "augment_shift", 0.0, 0.0, 0.5, "Training recordings are moved in time by up to this share of their length."
        ),
        float_parameter(
            "augment_noise", 0.0, 0.0, 10.0, "Standard deviation of noise added to standardised spectrograms."
        ),
        float_parameter(
            "augment_time_mask", 0.0, 0.0, 1.0, "Up to this share of a spectrogram's frames in a row are masked."
        ),
        float_parameter(
            "augment_band_mask", 0.0, 0.0, 1.0, "Up to this share of a spectrogram's bands in a row are masked."
        ),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    tasks=("classification",),
    input_kind="audio",
    stack_members=32,
    first_members=2,
)
