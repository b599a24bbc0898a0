"""What is done to a training batch of cached features: masks and mixup, on the fly."""

import torch

__all__ = ["mask", "mix"]


def mask(
    batch: torch.Tensor, frames: torch.Tensor, share: float, pooled: bool = False
) -> torch.Tensor:
    """Mask one span of each clip's frames and one band of its features (Park et al. 2019).

    What is masked becomes the batch's mean of that feature, so that nothing unheard of comes in.
    Each width is drawn up to `share` of what there is. Pooled features have no frames to mask.

    Args:
        batch: Features (B, [L,] T, D), or (B, L, D) pooled, float32.
        frames: Valid frames of each clip, int64 (B,).
        share: Largest share that is masked, from 0 to under 1; 0 for none.
        pooled: Whether time was pooled at extraction.

    Returns:
        The batch, masked, in the same shape; the same tensor where nothing is.
    """
    if not share:
        return batch
    rows, columns = batch.shape[-2:]
    if pooled:  # every layer is valid
        frames = torch.full_like(frames, rows)
    own = torch.arange(rows, device=batch.device) < frames[:, None].to(batch.device)  # (B, T)
    hidden = _span(torch.full_like(frames, columns), columns, share)[:, None, :]  # (B, 1, D)
    if not pooled:
        hidden = hidden | _span(frames, rows, share)[:, :, None]  # (B, T, D)
    hidden = hidden.to(batch.device)
    weights = own.to(batch.dtype)[:, :, None]  # (B, T, 1)
    if batch.dim() == 4:
        hidden, weights = hidden.unsqueeze(1), weights.unsqueeze(1)
    over = (0,) if pooled else (0, -2)
    mean = (batch * weights).sum(over, keepdim=True) / weights.sum(over, keepdim=True)
    return torch.where(hidden & (weights > 0), mean, batch)


def _span(lengths: torch.Tensor, size: int, share: float) -> torch.Tensor:
    """Draw one span within each length (B,), up to a share of it: bool (B, size)."""
    lengths = lengths.cpu().float()
    width = (torch.rand(len(lengths)) * (share * lengths + 1)).floor()
    start = (torch.rand(len(lengths)) * (lengths - width + 1)).floor()
    places = torch.arange(size)
    return (places >= start[:, None]) & (places < (start + width)[:, None])


def mix(
    batch: torch.Tensor, targets: torch.Tensor, frames: torch.Tensor, strength: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mix each clip, and its target, with another of the batch (Zhang et al. 2018).

    Args:
        batch: Features (B, ...), float32.
        targets: (B, C).
        frames: Valid frames of each clip, int64 (B,).
        strength: The share is drawn from Beta(strength, strength); 0 for none.

    Returns:
        All three, mixed.
    """
    if not strength:
        return batch, targets, frames
    share = torch.distributions.Beta(strength, strength).sample()
    other = torch.randperm(len(batch))
    batch = torch.lerp(batch[other], batch, share.to(batch))
    targets = torch.lerp(targets[other], targets, share.to(targets))
    return batch, targets, torch.maximum(frames, frames[other])
