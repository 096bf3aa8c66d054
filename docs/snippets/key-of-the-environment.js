const apiKey = process.env.PLUGGEDIN_API_KEY;
