local id, priority, payload, key, print = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ttl, max_entries, max_bytes, model = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
if key ~= '' then
  local seen = redis.call('GET', idem(key))
  if seen then
    local known, of = string.match(seen, '^(%S+) (%S+)$')
    if known and redis.call('EXISTS', job(known)) == 1 then
      if of ~= print then return {'conflict', known, 0} end
      return {'duplicate', known, 0}
    end
  end
end
local waiting = entries()
local bytes = tonumber(redis.call('HGET', STATS, 'bytes') or '0')
if waiting >= max_entries or bytes + #payload > max_bytes then
  count('refused')
  return {'full', '', waiting}
end
local s = stream(priority)
group(s)
local entry = redis.call('XADD', s, '*', 'id', id, 'job', payload)
if key ~= '' then redis.call('SET', idem(key), id .. ' ' .. print, 'PX', ttl) end
redis.call('HSET', job(id), 'status', 'queued', 'priority', priority, 'entry', entry, 'model', model,
  'created_at', now(), 'bytes', #payload, 'attempts', 0, 'idem', key)
count('enqueued')
count('bytes', #payload)
return {'accepted', id, waiting + 1}
