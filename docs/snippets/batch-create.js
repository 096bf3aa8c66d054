// Batch create servers
const batchCreate = await fetch('https://plugged.in/api/batch', {
  method: 'POST',
  headers: {
    'Authorization': 'Bearer YOUR_API_KEY',
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    operations: [
      {
        method: 'POST',
        path: '/servers',
        body: { name: 'Server 1', type: 'STDIO', config: {...} }
      },
      {
        method: 'POST',
        path: '/servers',
        body: { name: 'Server 2', type: 'SSE', config: {...} }
      }
    ]
  })
});
