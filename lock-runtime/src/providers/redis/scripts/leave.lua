local held = let_go(ARGV[1], ARGV[2])
purge()
serve(nil, ARGV[1])
return held and 1 or 0
