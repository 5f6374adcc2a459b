local consumer, n = ARGV[1], 0
for i = 2, #ARGV, 2 do
  local s, entry = stream(ARGV[i]), ARGV[i + 1]
  if redis.call('XPENDING', s, GROUP, entry, entry, 1, consumer)[1] then
    redis.call('XCLAIM', s, GROUP, consumer, 0, entry, 'JUSTID')
    n = n + 1
  end
end
return n
