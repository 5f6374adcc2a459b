local id, ttl = ARGV[1], ARGV[2]
local known = redis.call('HMGET', job(id), 'status', 'priority', 'entry', 'bytes', 'idem')
if not known[1] then return 'missing' end
if known[1] ~= 'queued' then return known[1] end
remove(known[2], known[3])
redis.call('HSET', job(id), 'status', 'cancelled', 'finished_at', now())
redis.call('PEXPIRE', job(id), ttl)
if known[5] and known[5] ~= '' then redis.call('PEXPIRE', idem(known[5]), ttl) end
if known[4] then count('bytes', -tonumber(known[4])) end
count('cancelled')
return 'now'
