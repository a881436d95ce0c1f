"""Training loop for distillation of the student and for training or fine-tuning of the teacher."""
