local priority, entry, id, bytes, expires = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local key, print, ttl, model, deliveries, most = ARGV[6], ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])
local known = redis.call('HMGET', job(id), 'status', 'entry')
if not known[1] then
  -- Written to the stream by an external producer: it is registered when a worker first sees it.
  count('enqueued')
  if key ~= '' then
    local seen = redis.call('GET', idem(key))
    local other = seen and string.match(seen, '^(%S+) ')
    if other and other ~= id and redis.call('EXISTS', job(other)) == 1 then
      remove(priority, entry)
      count('duplicate')
      return 'duplicate'
    end
    redis.call('SET', idem(key), id .. ' ' .. print, 'PX', ttl)
  end
  redis.call('HSET', job(id), 'status', 'queued', 'priority', priority, 'entry', entry, 'model', model,
    'created_at', string.match(entry, '^%d+'), 'attempts', 0, 'idem', key)
elseif known[2] ~= entry then
  -- A second entry with the same id.
  remove(priority, entry)
  count('enqueued')
  count('duplicate')
  return 'duplicate'
elseif ENDED[known[1]] then
  remove(priority, entry)
  return 'duplicate'
end
if deliveries > most then return 'dead' end
local t = now()
if expires > 0 and t > expires then return 'expired' end
redis.call('HSET', job(id), 'status', 'running', 'started_at', t)
redis.call('HINCRBY', job(id), 'attempts', 1)
return 'run'
