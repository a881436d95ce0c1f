"""What a prediction is worth: distillation from a teacher, supervision by measurements. Every criterion is called
`criterion(prediction, target) -> LossOutput`."""
