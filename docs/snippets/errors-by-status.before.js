// The sample returns, so it is the body of a function.
async function create(serverConfig) {
