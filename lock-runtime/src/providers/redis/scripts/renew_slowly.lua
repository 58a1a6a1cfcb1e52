purge()
local extended = extend(ARGV[1], ARGV[2], ARGV[3])
if not extended then let_go(ARGV[1], ARGV[3]) end
serve(nil, not extended and ARGV[1])
return extended and 1 or 0
