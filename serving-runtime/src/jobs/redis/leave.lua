-- A consumer that goes. Deleting one that still holds deliveries would lose them.
for _, p in ipairs(PRIORITIES) do
  local held = redis.pcall('XPENDING', stream(p), GROUP, '-', '+', 1, ARGV[1])
  if not held.err and not held[1] then redis.pcall('XGROUP', 'DELCONSUMER', stream(p), GROUP, ARGV[1]) end
end
return 1
