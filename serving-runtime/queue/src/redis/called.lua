local id, attempt, outcome, delay, note, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local key = job(id)
local known = redis.call('HMGET', key, 'callback_status', 'callback_attempts', 'callback_url')
if known[1] ~= 'pending' then return 0 end
-- A later attempt is in progress, so only a success of this one changes the state.
if known[2] ~= attempt and outcome ~= 'delivered' then return 0 end
if outcome == 'retry' then
  redis.call('ZADD', CALLBACKS, now() + delay, id)
  redis.call('HSET', key, 'callback_error', note)
  return 1
end
redis.call('ZREM', CALLBACKS, id)
redis.call('HSET', key, 'callback_status', outcome, 'callback_at', now())
if note ~= '' then redis.call('HSET', key, 'callback_error', note) else redis.call('HDEL', key, 'callback_error') end
count('callbacks_' .. outcome)
if outcome == 'dead' then
  redis.call('XADD', B .. ':callbacks:dead', 'MAXLEN', '~', keep, '*', 'id', id, 'url', known[3], 'error', note)
end
return 1
