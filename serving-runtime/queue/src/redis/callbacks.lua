-- Takes callbacks that are due; each is hidden from other workers until its lease expires.
local lease, most, t, out = tonumber(ARGV[1]), tonumber(ARGV[2]), now(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', CALLBACKS, '-inf', t, 'LIMIT', 0, most)) do
  local key = job(id)
  if redis.call('HGET', key, 'callback_status') ~= 'pending' then
    -- The result has expired already, so there is nothing to send.
    redis.call('ZREM', CALLBACKS, id)
    count('callbacks_dead')
  else
    redis.call('ZADD', CALLBACKS, t + lease, id)
    redis.call('HINCRBY', key, 'callback_attempts', 1)
    redis.call('HSETNX', key, 'callback_first_at', t)
    out[#out + 1] = {id, t, redis.call('HGETALL', key)}
  end
end
return out
