"""Training: the same loop distils the student and fine-tunes or trains the teacher."""
