if held then
  give_up(ARGV[5])
end
return take_or_wait(redis.pcall('SET', lock, ARGV[1], 'NX', 'PX', ARGV[2]))
