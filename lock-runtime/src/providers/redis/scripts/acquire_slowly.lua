return take_or_wait(took)
