// Good
const apiKey = process.env.PLEXMCP_API_KEY;
