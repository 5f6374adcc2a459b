-- Deletes a consumer that leaves, and those that have been inactive for too long. Consumers that still hold deliveries
-- are kept, because deleting them would lose the deliveries.
local own, silent = ARGV[1], tonumber(ARGV[2])
for _, p in ipairs(PRIORITIES) do
  local all = redis.pcall('XINFO', 'CONSUMERS', stream(p), GROUP)
  if not all.err then
    for _, flat in ipairs(all) do
      local it = {}
      for i = 1, #flat, 2 do it[flat[i]] = flat[i + 1] end
      if it.pending == 0 and (it.name == own or it.idle > silent) then
        redis.pcall('XGROUP', 'DELCONSUMER', stream(p), GROUP, it.name)
      end
    end
  end
end
return 1
