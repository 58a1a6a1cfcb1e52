-- Gives up what one owner holds, lets in whoever waits, and has another owner queue behind them;
-- with nobody waiting, that is let in at once.
-- KEYS: as for acquiring.
-- ARGV: as for acquiring, with the owner that gives up and its mode before the entry. Answers as
-- acquiring does.
let_go(ARGV[6], ARGV[7])
purge()
serve(nil, ARGV[6])
return enter_or_wait(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[8])
