"""Means and covariances are those of all rows, in however many blocks they come."""

import torch

from vjepa_training.trainers.moments import means_and_covariance


def test_they_are_those_of_all_rows_at_once():
    rows = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0)) + 3.0
    first, second = rows[:, :4], rows[:, 2:]
    found = means_and_covariance(zip(first.split(130), second.split(130), strict=True))
    together = torch.cov(rows.T.double(), correction=0)
    for part, expected in zip(found, (first.double().mean(0), second.double().mean(0), together[:4, 2:]), strict=True):
        assert part.dtype == torch.float64
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)
