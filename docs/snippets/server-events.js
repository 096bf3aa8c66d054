// SSE connection for live updates
const eventSource = new EventSource(
  'https://plugged.in/api/servers/events?token=YOUR_API_KEY'
);

eventSource.onmessage = (event) => {
  const data = JSON.parse(event.data);
  console.log('Server event:', data);
};

eventSource.addEventListener('tool.executed', (event) => {
  const result = JSON.parse(event.data);
  console.log('Tool result:', result);
});
