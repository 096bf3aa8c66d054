// What the sample leaves to its reader. What it waits for is printed, not waited for.
const apiKey = process.env.API_KEY, retryCount = 2;
const sleep = async (ms) => console.log(`would wait ${ms} ms`);
