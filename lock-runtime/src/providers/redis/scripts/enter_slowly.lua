return enter_or_wait(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
