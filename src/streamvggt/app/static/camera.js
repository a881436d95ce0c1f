// Images of the user's camera, sent one at a time: the response of the server requests the next one.

const WIDTH = 640; // of the sent images in pixels; models use fewer
const QUALITY = 0.88;

/** Open the camera. Throws an Error with a reason for the user. */
export async function openCamera() {
  if (!navigator.mediaDevices) throw new Error("Camera access requires HTTPS or localhost.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 2 * WIDTH } } });
  } catch (error) {
    const why = { NotAllowedError: "Camera access was not permitted.", NotFoundError: "No camera was found." };
    throw new Error(why[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

/** Send images of an open camera while `shouldContinue()`. */
export async function sendFrames(stream, shouldContinue) {
  const video = document.createElement("video");
  video.srcObject = stream;
  video.muted = video.playsInline = true;
  await video.play();
  const canvas = document.createElement("canvas");
  while (stream.active && shouldContinue()) {
    canvas.width = Math.min(WIDTH, video.videoWidth);
    canvas.height = Math.round((video.videoHeight * canvas.width) / video.videoWidth);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const image = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
    await fetch("camera-frame", { method: "POST", body: image });
  }
}
