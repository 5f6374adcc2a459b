local t, waiting, taken, oldest = now(), 0, 0, 0
for _, p in ipairs(PRIORITIES) do
  local s = stream(p)
  local pending = redis.pcall('XPENDING', s, GROUP)
  local mine = pending.err and 0 or pending[1]
  waiting = waiting + redis.call('XLEN', s) - mine
  taken = taken + mine
  local first = redis.call('XRANGE', s, '-', '+', 'COUNT', 1)
  if first[1] then oldest = math.max(oldest, t - tonumber(string.match(first[1][1], '^%d+'))) end
end
local due = redis.call('ZRANGE', CALLBACKS, 0, 0, 'WITHSCORES')
local late = due[2] and math.max(t - tonumber(due[2]), 0) or 0
return {waiting, taken, oldest, redis.call('ZCARD', CALLBACKS), late, redis.call('HGETALL', STATS)}
