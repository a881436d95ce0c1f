// Pictures of the visitor's camera, sent one at a time: the server answers when it wants the next one.

const WIDTH = 640; // of what is sent; the networks see less
const QUALITY = 0.88;

/**
 * Send pictures while `shouldContinue()`.
 * Throws an Error with words for the visitor if there is no camera or it may not be used.
 */
export async function sendFrames(shouldContinue) {
  if (!navigator.mediaDevices) throw new Error("Browsers give cameras only to pages on this machine or behind https.");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 2 * WIDTH } } });
  } catch (error) {
    const why = { NotAllowedError: "it was not permitted", NotFoundError: "there is none" }[error.name] ?? error.message;
    throw new Error(`The camera cannot be used: ${why}.`);
  }
  const video = document.createElement("video");
  video.srcObject = stream;
  video.muted = video.playsInline = true;
  await video.play();
  const canvas = document.createElement("canvas");
  try {
    while (shouldContinue()) {
      canvas.width = Math.min(WIDTH, video.videoWidth);
      canvas.height = Math.round((video.videoHeight * canvas.width) / video.videoWidth);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const picture = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
      await fetch("camera-frame", { method: "POST", body: picture });
    }
  } finally {
    stream.getTracks().forEach((track) => track.stop());
  }
}
