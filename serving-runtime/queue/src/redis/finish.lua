local priority, entry, id, status, result, err = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local ttl, url, payload, keep, version, trace = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local key = job(id)
local known = redis.call('HMGET', key, 'status', 'bytes', 'idem')
remove(priority, entry)
-- The first result is final.
if known[1] and ENDED[known[1]] then return 0 end
if not known[1] then
  count('enqueued')
  redis.call('HSET', key, 'priority', priority, 'created_at', string.match(entry, '^%d+'), 'attempts', 0)
end
local t = now()
redis.call('HSET', key, 'status', status, 'finished_at', t, 'version', version)
if result ~= '' then redis.call('HSET', key, 'result', result) end
if err ~= '' then redis.call('HSET', key, 'error', err) else redis.call('HDEL', key, 'error') end
redis.call('PEXPIRE', key, ttl)
if known[3] and known[3] ~= '' then redis.call('PEXPIRE', idem(known[3]), ttl) end
if known[2] then count('bytes', -tonumber(known[2])) end
count(status)
if url ~= '' then
  redis.call('HSET', key, 'callback_url', url, 'callback_status', 'pending', 'callback_attempts', 0)
  if trace ~= '' then redis.call('HSET', key, 'traceparent', trace) end
  redis.call('ZADD', CALLBACKS, t, id)
  count('callbacks')
end
if status == 'dead' then
  redis.call('XADD', B .. ':dead', 'MAXLEN', '~', keep, '*', 'id', id, 'job', payload, 'error', err)
end
return 1
