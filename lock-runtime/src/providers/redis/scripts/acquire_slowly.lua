return take_or_wait(took, ARGV[5])
