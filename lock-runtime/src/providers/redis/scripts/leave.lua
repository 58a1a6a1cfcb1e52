local held = let_go(ARGV[1], ARGV[2])
-- What stands beside the lock and is not ours must not keep it from those who wait.
pcall(purge)
serve(nil, ARGV[1])
return held and 1 or 0
