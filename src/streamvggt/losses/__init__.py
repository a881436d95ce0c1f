"""Losses for distillation and for supervision with ground truth.

All criteria have the signature `criterion(prediction, target) -> LossOutput`.
"""
