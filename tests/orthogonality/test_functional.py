"""Orthogonality formulas: closed forms, gradients, and independent references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthounlearn.orthogonality import functional

shapes = st.tuples(st.integers(1, 6), st.integers(1, 3), st.sampled_from([1, 2, 3]))


def orthonormal(rows: int, inputs: int, size: int) -> Tensor:
    """Kernels whose smaller side is orthonormal."""
    columns = inputs * size * size
    q, _ = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), dtype=torch.float64))
    matrix = q if rows > columns else q.T
    return matrix.reshape(rows, inputs, size, size).contiguous()


@given(shapes)
@settings(max_examples=30)
def test_orthonormal_kernels_cost_nothing(shape: tuple[int, int, int]):
    weight = orthonormal(*shape)
    assert functional.gram_error(weight).item() == pytest.approx(0, abs=1e-20)
    assert functional.mutual_coherence(weight).item() == pytest.approx(0, abs=1e-12)


@given(shapes, st.floats(0.1, 3))
@settings(max_examples=30)
def test_scaled_orthonormal_kernels(shape: tuple[int, int, int], scale: float):
    rows, inputs, size = shape
    side = min(rows, inputs * size * size)
    weight = orthonormal(*shape) * scale
    error = scale**2 - 1
    assert functional.gram_error(weight).item() == pytest.approx(side * error**2, abs=1e-9)
    assert functional.mutual_coherence(weight).item() == pytest.approx(abs(error), abs=1e-9)


def test_hand_computed_two_by_two():
    """W = [[1, 1], [0, 1]]: W Wᵀ − I = [[1, 1], [1, 0]], Wᵀ W − I = [[0, 1], [1, 1]]."""
    weight = torch.tensor([[1.0, 1.0], [0.0, 1.0]])[:, :, None, None]
    assert functional.gram_error(weight).item() == 3
    assert functional.double_gram_error(weight).item() == 6
    assert functional.mutual_coherence(weight).item() == 1
    # b = (1, 0): M b = (1, 1), v = (1, 1)/√2, M v = (2, 1)/√2, ‖M v‖² = 5/2.
    start = torch.tensor([1.0, 0.0])
    assert functional.spectral_restricted_isometry(weight, start).item() == pytest.approx(2.5)
    # Cosine of (1, 1) and (0, 1).
    assert functional.mean_absolute_cosine(weight).item() == pytest.approx(2**-0.5)


@given(shapes)
@settings(max_examples=30)
def test_wide_and_tall_kernels_use_the_feasible_side(shape: tuple[int, int, int]):
    """‖WWᵀ − I_O‖² and ‖WᵀW − I_n‖² differ by O − n exactly, so only one side can reach 0."""
    rows, inputs, size = shape
    weight = torch.randn(rows, inputs, size, size, dtype=torch.float64)
    matrix = weight.flatten(1)
    by_rows = (matrix @ matrix.T - torch.eye(rows)).square().sum().item()
    by_columns = (matrix.T @ matrix - torch.eye(matrix.shape[1])).square().sum().item()
    assert by_rows - by_columns == pytest.approx(rows - matrix.shape[1], abs=1e-8)
    assert functional.gram_error(weight).item() == pytest.approx(min(by_rows, by_columns), abs=1e-9)
    total = functional.double_gram_error(weight).item()
    assert total == pytest.approx(by_rows + by_columns, abs=1e-9)


@given(shapes)
@settings(max_examples=20)
def test_srip_is_bounded_by_the_spectral_norm_and_reaches_it(shape: tuple[int, int, int]):
    rows, inputs, size = shape
    weight = torch.randn(rows, inputs, size, size, dtype=torch.float64)
    off = functional.gram(weight) - torch.eye(min(rows, inputs * size * size))
    values, vectors = torch.linalg.eigh(off)
    largest = values.abs().argmax()
    sigma_squared = values[largest].square().item()
    found = functional.spectral_restricted_isometry(weight).item()
    assert found <= sigma_squared * (1 + 1e-9)
    at_top = functional.spectral_restricted_isometry(weight, vectors[:, largest]).item()
    assert at_top == pytest.approx(sigma_squared, rel=1e-6)


def convolution_matrix(weight: Tensor, *, stride: int, pixels: int) -> Tensor:
    """The rows of the convolution as a matrix, column by column from unit images, no padding."""
    inputs = weight.shape[1]
    units = torch.eye(inputs * pixels * pixels, dtype=weight.dtype)
    images = units.view(-1, inputs, pixels, pixels)
    return torch.nn.functional.conv2d(images, weight, stride=stride).flatten(1).T


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_self_convolution_is_the_gram_matrix_of_the_convolution(stride: int):
    """Every pair of kernel shifts that overlap is one entry of K Kᵀ − I, seen from one pixel."""
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    reach = (3 - 1) // stride  # in output pixels
    pixels = 3 + 2 * reach * stride
    matrix = convolution_matrix(weight, stride=stride, pixels=pixels)
    side = 2 * reach + 1
    error = matrix @ matrix.T - torch.eye(len(matrix))
    blocks = error.view(3, side, side, 3, side, side)
    expected = blocks[:, reach, reach].square().sum().item()
    found = functional.self_convolution_error(weight, stride=stride).item()
    assert found == pytest.approx(expected, rel=1e-9)


def test_self_convolution_of_a_delta_is_zero():
    weight = torch.zeros(2, 2, 3, 3)
    weight[0, 0, 1, 1] = weight[1, 1, 0, 2] = 1
    assert functional.self_convolution_error(weight).item() == 0


@pytest.mark.parametrize("shape", [(3, 1), (1, 3)])
def test_self_convolution_of_a_strip_is_that_of_the_square_around_it(shape: tuple[int, int]):
    strip = torch.randn(4, 2, *shape)
    square = torch.zeros(4, 2, 3, 3)
    (square[..., 1:2] if shape[1] == 1 else square[..., 1:2, :]).copy_(strip)
    expected = functional.self_convolution_error(square).item()
    assert functional.self_convolution_error(strip).item() == pytest.approx(expected, rel=1e-5)


def test_self_convolution_sees_shifts_that_the_kernel_matrix_does_not():
    weight = torch.zeros(2, 1, 3, 3)
    weight[0, 0, 1, 0] = weight[1, 0, 1, 1] = 1  # the same delta, shifted by one pixel
    assert functional.gram_error(weight).item() == 0
    assert functional.self_convolution_error(weight).item() == 2


def test_single_kernel_has_no_cosine():
    assert functional.mean_absolute_cosine(torch.randn(1, 3, 3, 3)).item() == 0


@pytest.mark.parametrize(
    "measure",
    [
        functional.gram_error,
        functional.double_gram_error,
        functional.mutual_coherence,
        lambda w: functional.spectral_restricted_isometry(w, torch.ones(4, dtype=w.dtype)),
        lambda w: functional.self_convolution_error(w, stride=2),
        functional.mean_absolute_cosine,
    ],
)
def test_gradients_are_those_of_finite_differences(measure):
    weight = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(measure, weight)


@given(shapes)
@settings(max_examples=20)
def test_closed_form_gradient_is_the_derivative(shape: tuple[int, int, int]):
    rows, inputs, size = shape
    weight = torch.randn(rows, inputs, size, size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(functional.gram_error, (weight,))
    (found,) = torch.autograd.grad(3 * functional.gram_error(weight), weight)
    plain = functional.gram(weight) - torch.eye(min(rows, inputs * size * size))
    (expected,) = torch.autograd.grad(3 * plain.square().sum(), weight)
    torch.testing.assert_close(found, expected)
